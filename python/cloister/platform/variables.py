"""Environment variables of an enclave's user process, secret or not; values sealed at rest.

Values are bytes, exact: whatever `execve` takes. They leave the store only in a sealed bundle;
there is no call that returns a secret.
"""

import dataclasses
import re
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.database import Database
from cloister.platform.records import bump_versions, record_activity
from cloister.platform.tables import Enclave, Variable
from cloister.platform.vault import Vault


@dataclasses.dataclass(frozen=True, slots=True)
class OpenVariable:
    """A variable in clear, on its way into a bundle."""

    name: str
    value: bytes = dataclasses.field(repr=False)
    secret: bool


class Variables:
    """The variables of one enclave.

    Args:
        database: The open store.
        enclave_uuid: The enclave.
        clock: Source of the times that are written.
    """

    def __init__(self, database: Database, enclave_uuid: UUID, clock: Clock = system) -> None:
        self._database = database
        self._enclave_uuid = enclave_uuid
        self._clock = clock

    def set(self, name: str, value: bytes, *, secret: bool) -> None:
        """Sets a variable.

        Args:
            name: Letters, digits and underscores, not starting with a digit (POSIX.1-2024, 8.1).
            value: Anything without a NUL byte, at most :data:`MAX_VALUE_BYTES`.
            secret: It is never shown again.

        Raises:
            ConfigError: A name or value that a process cannot have, or too many of them.
            MissingInput: There is no such enclave.
        """
        _check(name, value)
        now_ms = to_ms(self._clock())
        sealed = self._database.vault.seal(value, place=_place(self._enclave_uuid, name))
        with self._database.writing() as session:
            if session.get(Enclave, self._enclave_uuid) is None:
                raise MissingInput(f"there is no enclave `{self._enclave_uuid}` in this store")
            row = session.get(Variable, (self._enclave_uuid, name))
            if row is None:
                row = Variable(enclave_uuid=self._enclave_uuid, name=name)
                session.add(row)
            row.value_sealed, row.secret, row.updated_ms = sealed, secret, now_ms
            self._check_totals(session)
            bump_versions(session, enclave_uuid=self._enclave_uuid)
            record_activity(session, now_ms, "variable.set", str(self._enclave_uuid), name)

    def delete(self, name: str) -> None:
        """Removes a variable.

        Raises:
            MissingInput: The enclave has no such variable.
        """
        with self._database.writing() as session:
            row = session.get(Variable, (self._enclave_uuid, name))
            if row is None:
                raise MissingInput("the enclave has no variable of this name")
            session.delete(row)
            bump_versions(session, enclave_uuid=self._enclave_uuid)
            record_activity(
                session, to_ms(self._clock()), "variable.delete", str(self._enclave_uuid), name
            )

    def names(self) -> dict[str, bool]:
        """Names in order, and whether each is a secret."""
        with self._database.reading() as session:
            rows = session.execute(
                select(Variable.name, Variable.secret)
                .where(Variable.enclave_uuid == self._enclave_uuid)
                .order_by(Variable.name)
            )
            return {row.name: row.secret for row in rows}

    def _check_totals(self, session: Session) -> None:
        session.flush()
        count, size = session.execute(
            select(func.count(), func.sum(func.length(Variable.value_sealed))).where(
                Variable.enclave_uuid == self._enclave_uuid
            )
        ).one()
        if count > MAX_VARIABLES or size > MAX_TOTAL_BYTES:
            raise ConfigError(
                f"an enclave has at most {MAX_VARIABLES} variables of {MAX_TOTAL_BYTES} bytes"
                f" together, this would make {count} of {size}"
            )


def open_all(session: Session, vault: Vault, enclave_uuid: UUID) -> list[OpenVariable]:
    """Every variable in clear, for a bundle, within a transaction."""
    rows = session.scalars(
        select(Variable).where(Variable.enclave_uuid == enclave_uuid).order_by(Variable.name)
    )
    return [
        OpenVariable(
            name=row.name,
            value=vault.open(row.value_sealed, place=_place(enclave_uuid, row.name)),
            secret=row.secret,
        )
        for row in rows
    ]


def _check(name: str, value: bytes) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name):
        raise ConfigError(
            f"{name[:80]!a} is not the name of a variable: expected letters, digits and"
            " underscores, and no digit first"
        )
    if b"\0" in value:
        raise ConfigError(f"the value of `{name}` has a NUL byte, which no process can be given")
    if len(value) > MAX_VALUE_BYTES:
        raise ConfigError(
            f"the value of `{name}` is {len(value)} bytes long, the limit is {MAX_VALUE_BYTES}"
        )


def _place(enclave_uuid: UUID, name: str) -> str:
    return f"variables/{enclave_uuid}/{name}"


MAX_VALUE_BYTES = 96 * 1024  # execve: one string is at most 128 KiB (execve(2), MAX_ARG_STRLEN)
MAX_VARIABLES = 1024
MAX_TOTAL_BYTES = 512 * 1024  # a sealed bundle has to fit in the 1 MiB of the agent API
