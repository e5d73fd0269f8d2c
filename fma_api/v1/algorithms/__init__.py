"""`algorithms/`: the catalogue of parts."""
