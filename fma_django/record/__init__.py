"""The record: configurations and what they mean, idempotency keys, weights as rows know them, and every longer read."""
