"""What the pages and docstrings say is run, and what they promise is looked up."""
