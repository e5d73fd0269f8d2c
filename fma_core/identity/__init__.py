"""Who says so: Ed25519 keys of clients, certificates of their organisations, and what both sign.

The only folder that knows `cryptography`. docs/reference/signatures.md has the bytes, `vectors.json` examples of all.
"""
