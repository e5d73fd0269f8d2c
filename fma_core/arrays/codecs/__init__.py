"""Weights as bytes: safetensors (stored and on the wire) and FMA's JSON layouts."""
