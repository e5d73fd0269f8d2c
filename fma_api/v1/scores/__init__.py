"""`client_aggregate_scores/`."""
