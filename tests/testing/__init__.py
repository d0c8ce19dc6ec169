"""`duly.testing`: what it promises to those who test with it."""
