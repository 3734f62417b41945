"""What is minimised: each a function of a model and a batch."""
