"""Logging in at the operator's identity provider, by OpenID Connect, with allauth."""
