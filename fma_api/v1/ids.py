"""Ids: their patterns in paths, and the largest one."""

MAX_ID = 2**63 - 1
NUMBER = r"\d{1,18}"
UUID = r"[0-9a-f-]{36}"
