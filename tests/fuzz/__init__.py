"""Hostile inputs for all that reads what others send: `python -m tests.fuzz --inputs 1000000`."""
