"""The published clients, as they are, against a server in a process of its own."""
