"""Registering functions, and calling them by name in a transaction."""
