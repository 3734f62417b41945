"""The demo: a small, real fine-tuning run from nothing to a before/after table."""
