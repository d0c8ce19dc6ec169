"""Making due things happen."""
