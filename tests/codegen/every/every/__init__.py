"""A module whose functions have paths that begin like those of the app's root: `every/names:count`."""
