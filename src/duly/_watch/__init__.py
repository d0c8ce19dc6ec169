"""What those who run an app see of it."""
