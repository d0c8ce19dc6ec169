"""Pure data and pure decisions: nothing here awaits, reads a clock, or speaks to a store."""
