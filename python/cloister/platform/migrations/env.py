"""What Alembic runs around the migrations: on the connection it is given, in its transaction."""

from alembic import context

from cloister.platform.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
