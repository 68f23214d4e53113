"""The predictor, the model directory, and the engines that run a model."""
