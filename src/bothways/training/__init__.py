"""Training: the recipe, the loop and the optimizer."""
