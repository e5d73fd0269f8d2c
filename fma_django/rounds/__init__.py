"""The life of a round: its rows, its start, its claim, its fold, its publication."""
