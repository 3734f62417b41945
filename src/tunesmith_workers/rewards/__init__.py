"""Graders: how much one answer is worth, as a number. Nothing here runs a model or a program that a request brings."""
