"""Weights: named arrays, their spec and dtypes, and their encoding as bytes."""
