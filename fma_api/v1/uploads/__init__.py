"""`uploads/`: updates that come in parts."""
