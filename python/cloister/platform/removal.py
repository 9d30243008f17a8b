"""Removing an enclave from the registry, with everything that belongs to it alone.

What was released to it stays on record, and so does its removal: its uuid is in images and tokens,
and is not registered again.
"""

from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform.bundle import BUNDLE_LIFE_MS
from cloister.platform.clock import Clock, to_ms
from cloister.platform.database import Database
from cloister.platform.records import read_deployments, read_enclave, record_activity
from cloister.platform.tables import Activity, Base, Boot, Enclave


def delete_enclave(database: Database, uuid: UUID, clock: Clock) -> None:
    """Removes an enclave: its deployments, variables, events, and the secret of its objects.

    Args:
        database: The open store.
        uuid: The enclave.
        clock: The platform's time.

    Raises:
        ConfigError: A deployment of it is active, or a boot has a bundle that has not ended.
        MissingInput: There is no such enclave.
    """
    now_ms = to_ms(clock())
    with database.writing() as session:
        record = read_enclave(session, uuid)
        if record is None:
            raise MissingInput(f"there is no enclave `{uuid}` in this store")
        _check_idle(session, uuid, now_ms)
        # Children first: the order of the tables is that of their foreign keys.
        for table in reversed(Base.metadata.sorted_tables):
            for column in table.columns:
                if any(key.column is Enclave.__table__.c.uuid for key in column.foreign_keys):
                    session.execute(delete(table).where(column == uuid))
        session.execute(delete(Enclave).where(Enclave.uuid == uuid))
        message = f"enclave `{record.name}` deleted"
        record_activity(session, now_ms, DELETED, str(uuid), message)


def check_unused(session: Session, uuid: UUID) -> None:
    """Whether a uuid may be registered: no enclave that was removed had it.

    Raises:
        ConfigError: One had.
    """
    query = select(Activity.id).where(Activity.kind == DELETED, Activity.subject == str(uuid))
    if session.scalars(query.limit(1)).first() is not None:
        raise ConfigError(
            f"the enclave `{uuid}` was deleted, and its uuid is not registered again",
            hint="`cloister init NAME` makes another, without the old enclave.toml",
        )


def _check_idle(session: Session, uuid: UUID, now_ms: int) -> None:
    if any(one.is_active(now_ms) for one in read_deployments(session, uuid)):
        raise ConfigError(
            "the enclave has an active deployment, so it is not deleted",
            hint="`cloister platform deployment end` ends one; its last bundle ends in 15 minutes",
        )
    last_ms = session.scalar(select(func.max(Boot.issued_ms)).where(Boot.enclave_uuid == uuid))
    left_ms = 0 if last_ms is None else last_ms + BUNDLE_LIFE_MS - now_ms
    if left_ms > 0:
        raise ConfigError(
            "a boot of the enclave has a bundle that has not ended, so it is not deleted",
            hint=f"the last one ends in {-(-left_ms // 1000)} s",
        )


DELETED = "enclave.delete"
