"""The world behind small doors: time, chance, identity, and how values are written down."""
