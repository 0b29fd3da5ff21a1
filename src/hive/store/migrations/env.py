"""The entry of Alembic into the migrations. The connection comes from `hive.store.schema.migrate`."""

from alembic import context

from hive.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
