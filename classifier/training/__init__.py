"""The training: what it needs, one loop, losses, schedules, the frozen trunk's cache."""
