"""What Alembic runs: revisions on the connection that ``schema.create`` has opened."""

from alembic import context

from ncii_match.bank.truth import tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables.metadata, transaction_per_migration=False
)
context.run_migrations()
