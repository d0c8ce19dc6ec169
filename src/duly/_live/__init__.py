"""Queries whose results keep up with what is committed."""
