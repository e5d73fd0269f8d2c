"""What workers do by themselves: tasks, schedules, the clock, the heartbeat, the sweep."""
