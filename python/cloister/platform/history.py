"""What happened on a platform, in pages, newest first."""

from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, select

from cloister.platform.clock import from_ms
from cloister.platform.database import Database
from cloister.platform.json_forms import text
from cloister.platform.tables import Activity, EnclaveEvent, Release

Row = TypeVar("Row", Activity, Release, EnclaveEvent)


def activity(database: Database, *, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """What changed, newest first; ``before`` is the ``id`` that the page before ended with."""
    with database.reading() as session:
        return [
            {
                "id": row.id,
                "at": text(from_ms(row.at_ms)),
                "kind": row.kind,
                "subject": row.subject,
                "message": row.message,
            }
            for row in session.scalars(_page(Activity, limit, before))
        ]


def releases(
    database: Database, enclave_uuid: UUID, *, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """Bundles that were released to an enclave, and refusals, newest first."""
    query = _page(Release, limit, before).where(Release.enclave_uuid == enclave_uuid)
    with database.reading() as session:
        return [
            {
                "id": row.id,
                "at": text(from_ms(row.at_ms)),
                "released": row.released,
                "reason": row.reason,
                "deployment": row.deployment_id,
                "bundle_version": row.bundle_version,
                "module_id": row.module_id,
            }
            for row in session.scalars(query)
        ]


def events(
    database: Database, enclave_uuid: UUID, *, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """What hosts reported of an enclave, newest first; nobody vouches for it."""
    query = _page(EnclaveEvent, limit, before).where(EnclaveEvent.enclave_uuid == enclave_uuid)
    with database.reading() as session:
        return [
            {
                "id": row.id,
                "at": text(from_ms(row.at_ms)),
                "kind": row.kind,
                "message": row.message,
            }
            for row in session.scalars(query)
        ]


def _page(table: type[Row], limit: int, before: int | None) -> Select[Row]:
    query = select(table).order_by(table.id.desc()).limit(limit)
    return query if before is None else query.where(table.id < before)
