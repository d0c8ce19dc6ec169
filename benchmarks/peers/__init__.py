"""The same work for other systems. Each module runs by itself, with the Python of the peers' virtual environment."""
