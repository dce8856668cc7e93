"""Alembic's revisions of the bank's tables. They go forwards only: going back would lose what was said since."""
