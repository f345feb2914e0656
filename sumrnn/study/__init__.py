"""A question put to many seeds: its declaration, its runs in one folder, and their table."""
