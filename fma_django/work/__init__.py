"""The work of the worker processes: tasks, schedules, the clock, the heartbeat, the sweep."""
