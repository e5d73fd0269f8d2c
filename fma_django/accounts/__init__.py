"""Users, their roles, and what these let them do."""
