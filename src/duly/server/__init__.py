"""What speaks with clients over the network. Needs `pip install 'duly[server]'`."""
