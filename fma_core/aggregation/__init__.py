"""Aggregation: the strategy that turns the updates of a round into the next model, and its parts."""
