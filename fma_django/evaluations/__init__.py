"""Evaluations across organisations, and the scores that clients report."""
