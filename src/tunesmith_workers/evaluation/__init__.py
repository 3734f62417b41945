"""Scoring a model on rows."""
