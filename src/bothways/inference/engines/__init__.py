"""One file for each engine, and what they share."""
