"""The pages of the second factor: asked for at a login, turned on and off by each user."""
