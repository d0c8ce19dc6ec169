"""Databases that can't be used as they are."""
