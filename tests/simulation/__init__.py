"""Simulations: many workers, many faults, one seed; and a model that says what may have come of it."""
