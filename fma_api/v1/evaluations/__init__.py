"""`evaluations/`, and those of a model."""
