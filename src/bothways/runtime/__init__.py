"""The model directory and the engines that run what is in it."""
