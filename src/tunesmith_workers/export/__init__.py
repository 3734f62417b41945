"""A model in another form: an adapter merged into its base, a graph in ONNX. Each is checked against the model it was made of."""
