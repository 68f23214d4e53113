"""Reads what users hand over: tables, columns of words, questions; rows become examples."""
