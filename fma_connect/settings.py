"""Defaults that a script may change before it creates a client."""

default_url = "http://127.0.0.1:8000/"
"""The server's URL for a WebClient without the argument `url`."""
