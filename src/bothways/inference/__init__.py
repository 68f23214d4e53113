"""The model directory, the engines that run what is in it, and the predictor."""
