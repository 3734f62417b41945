"""Worker programs that are asked for one answer, or are kept and asked again."""
