"""`models/`."""
