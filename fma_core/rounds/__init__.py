"""The life of a round, as pure decisions: when it starts, closes, opens again, and when an experiment is over."""
