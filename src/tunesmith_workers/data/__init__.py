"""Data files: read as a stream, validated, normalised, split. No torch in here: a check must start at once.

``shapes`` says what a row means and is what training reads with, too: what validates is what trains.
"""
