"""From data files to rendered, masked token rows and their batches; the preview."""
