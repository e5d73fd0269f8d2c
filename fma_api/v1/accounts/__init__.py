"""The caller of a request, and logging in."""
