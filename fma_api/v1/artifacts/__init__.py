"""`model_artifacts/`."""
