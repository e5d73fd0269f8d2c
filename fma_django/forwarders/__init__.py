"""Forward the metrics of published rounds to other tools. Each is optional, and none can hurt a round."""
