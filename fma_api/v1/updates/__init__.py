"""`model_updates/`."""
