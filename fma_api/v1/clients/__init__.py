"""`clients/`."""
