"""What weights are: named arrays, their spec and dtypes, and the bytes they travel in."""
