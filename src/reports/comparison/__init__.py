"""The reports on several experiments: one row each, and what changes from one to the next."""
