"""Ed25519 keys of clients, certificates of their organisations, and the bytes that both sign.

The only folder that knows `cryptography`. docs/reference/signatures.md has the bytes, `vectors.json` examples of all.
"""
