"""Generating answers in batches."""
