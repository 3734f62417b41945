"""What is trained: all weights, or an adapter."""
