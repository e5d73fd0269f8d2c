"""Places outside where the metrics of published rounds can be sent to. Each is optional, and none can hurt a round."""
