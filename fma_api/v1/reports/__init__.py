"""What clients report of themselves: telemetry and errors."""
