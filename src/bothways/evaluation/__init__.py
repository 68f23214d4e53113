"""Judges models: baseline, comparison, measurement, accuracy check, tuning."""
