"""An error that ends a command with one sentence for the person who typed it, and exit code 1."""


class Problem(Exception):
    """Something that the person can put right; the message says how."""
