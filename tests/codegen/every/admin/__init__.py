"""A package in the app."""
