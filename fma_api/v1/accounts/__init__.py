"""Who the caller is, and logging in."""
