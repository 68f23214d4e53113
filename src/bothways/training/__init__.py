"""Fitting a model: the recipe, the loop, the optimizer."""
