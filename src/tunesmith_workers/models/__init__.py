"""Loading models and tokenizers: the hub, precision, chat templates."""
