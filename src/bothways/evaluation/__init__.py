"""Evaluates models: baselines, comparison, measurement, the accuracy check of int8 models, tuning."""
