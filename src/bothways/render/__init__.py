"""Predictions and results as HTML, terminal text and CSV."""
