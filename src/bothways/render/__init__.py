"""Predictions and results as HTML and terminal text."""
