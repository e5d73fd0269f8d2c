"""Reports of clients on themselves: telemetry and errors."""
