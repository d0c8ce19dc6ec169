"""Real processes, killed with real signals."""
