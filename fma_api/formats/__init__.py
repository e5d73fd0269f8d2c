"""The formats of times on pages: Django takes those of a language before those of the settings."""
