"""`model_aggregates/`."""
