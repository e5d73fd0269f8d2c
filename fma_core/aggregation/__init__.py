"""How the updates of a round become the next model: the parts of a strategy, and the strategy."""
