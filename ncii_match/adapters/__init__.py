"""Doors into other people's systems. Each file imports the system it serves, and nobody here imports these files."""
