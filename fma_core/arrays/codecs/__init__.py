"""Weights as bytes: safetensors (in storage and on the wire) and FMA's JSON layouts."""
