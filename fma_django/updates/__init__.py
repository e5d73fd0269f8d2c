"""The way in of an update: announced, allowed, accepted, at once or in parts."""
