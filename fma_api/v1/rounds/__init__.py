"""`models/<id>/rounds/`."""
