"""Sending a training's measurements to services that draw them, such as Weights & Biases."""
