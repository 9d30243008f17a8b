"""How numbers of schemas are written as revisions of Alembic."""


def revision(schema_version: int) -> str:
    """The revision of a schema: its number in four digits."""
    return f"{schema_version:04}"
