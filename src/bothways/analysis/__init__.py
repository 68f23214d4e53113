"""Judging a model: baseline, comparison, report."""
