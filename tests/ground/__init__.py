"""Properties of the ground: whatever the values, times and ids."""
