"""What hosts report of enclaves: the word of a stranger, kept short and few.

A host can say what it likes and as often as it likes; the newest :data:`KEEP` of each enclave stay.
Nothing is decided by them.
"""

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cloister.platform.tables import EnclaveEvent


def record(session: Session, enclave_uuid: UUID, kind: str, message: str, *, now_ms: int) -> None:
    """Keeps an event within a write transaction; text is cut and made printable."""
    row = EnclaveEvent(
        enclave_uuid=enclave_uuid,
        at_ms=now_ms,
        kind=_printable(kind, MAX_KIND),
        message=_printable(message, MAX_MESSAGE),
    )
    session.add(row)
    session.flush()
    oldest_kept = session.scalars(
        select(EnclaveEvent.id)
        .where(EnclaveEvent.enclave_uuid == enclave_uuid)
        .order_by(EnclaveEvent.id.desc())
        .offset(KEEP - 1)
        .limit(1)
    ).one_or_none()
    if oldest_kept is not None:
        session.execute(
            delete(EnclaveEvent).where(
                EnclaveEvent.enclave_uuid == enclave_uuid, EnclaveEvent.id < oldest_kept
            )
        )


def _printable(text: str, limit: int) -> str:
    shown = "".join(char if char.isprintable() else "�" for char in text[:limit])
    return shown if len(text) <= limit else f"{shown[:-1]}…"


KEEP = 1000  # events of one enclave
MAX_KIND = 64
MAX_MESSAGE = 512
