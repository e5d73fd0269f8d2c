"""Clients: registered, described, joining rounds, reporting on themselves."""
