"""The training loop for any objective and any weights."""
