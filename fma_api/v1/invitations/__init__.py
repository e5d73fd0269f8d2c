"""`invitations/`."""
