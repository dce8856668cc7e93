"""Private files: creating and reading them, replacing them whole, locking them, and what they hold by digest."""
