"""Alembic's revisions of the bank's tables."""
