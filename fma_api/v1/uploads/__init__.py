"""`uploads/`: updates and initial models that come in parts."""
