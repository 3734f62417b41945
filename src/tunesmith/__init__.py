"""Tunesmith: a self-hosted fine-tuning service for language models. Importing this package stays light."""

__version__ = "0.1.0"
