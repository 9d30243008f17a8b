"""Environment variables of an enclave's user process, secret or not; values sealed at rest.

Values are bytes, exact: whatever `execve` takes. A secret comes as a ciphertext of the app's key,
made on its owner's machine, and is opened by the enclave that starts the process: the store has no
clear text of it, and there is no call that returns one.
"""

import dataclasses
import re
from collections.abc import Sequence
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewVariable:
    """A variable to be set.

    Args:
        name: Letters, digits and underscores, not starting with a digit (POSIX.1-2024, 8.1).
        value: Anything without a NUL byte, at most :data:`MAX_VALUE_BYTES`; of a secret its
            ciphertext, an ``ev:`` string, at most :data:`MAX_CIPHERTEXT_BYTES`.
        secret: The value is a ciphertext, which the enclave opens.
    """

    name: str
    value: bytes = dataclasses.field(repr=False)
    secret: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VariableRecord:
    """A variable as its owner may see it: ``value`` is ``None`` for a secret."""

    name: str
    secret: bool
    updated_ms: int
    value: bytes | None = dataclasses.field(repr=False)


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
        """Sets one variable; see :meth:`set_all`."""
        self.set_all([NewVariable(name=name, value=value, secret=secret)])

    def set_all(self, variables: Sequence[NewVariable]) -> None:
        """Sets variables, all of them or none; the enclaves see them as one change.

        Raises:
            ConfigError: A name or value that a process cannot have, a secret that is not a
                ciphertext, or too many of them.
            MissingInput: There is no such enclave.
        """
        if len({variable.name for variable in variables}) != len(variables):
            raise ConfigError("a variable is named twice")
        for variable in variables:
            check(variable)
        now_ms = to_ms(self._clock())
        with self._database.writing() as session:
            if session.get(Enclave, self._enclave_uuid) is None:
                raise MissingInput(f"there is no enclave `{self._enclave_uuid}` in this store")
            for variable in variables:
                self._set(session, variable, now_ms)
            self._check_totals(session)
            bump_versions(session, enclave_uuid=self._enclave_uuid)

    def _set(self, session: Session, variable: NewVariable, now_ms: int) -> None:
        row = session.get(Variable, (self._enclave_uuid, variable.name))
        if row is None:
            row = Variable(enclave_uuid=self._enclave_uuid, name=variable.name)
            session.add(row)
        row.value_sealed = self._database.vault.seal(
            variable.value, place=_place(self._enclave_uuid, variable.name)
        )
        row.secret, row.updated_ms = variable.secret, now_ms
        record_activity(session, now_ms, "variable.set", str(self._enclave_uuid), variable.name)

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

    def all(self) -> list[VariableRecord]:
        """Every variable by name, with the values that are no secrets."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(Variable)
                .where(Variable.enclave_uuid == self._enclave_uuid)
                .order_by(Variable.name)
            )
            return [self._record(row) for row in rows]

    def get(self, name: str) -> VariableRecord:
        """One variable.

        Raises:
            MissingInput: The enclave has no such variable.
        """
        with self._database.reading() as session:
            row = session.get(Variable, (self._enclave_uuid, name))
            if row is None:
                raise MissingInput("the enclave has no variable of this name")
            return self._record(row)

    def _record(self, row: Variable) -> VariableRecord:
        place = _place(self._enclave_uuid, row.name)
        value = None if row.secret else self._database.vault.open(row.value_sealed, place=place)
        return VariableRecord(
            name=row.name, secret=row.secret, updated_ms=row.updated_ms, value=value
        )

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


def check(variable: NewVariable) -> None:
    """Whether a process can have this variable.

    Raises:
        ConfigError: It cannot, or a secret is not a ciphertext; the message says which.
    """
    name, value = variable.name, variable.value
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name):
        raise ConfigError(
            f"{name[:80]!a} is not the name of a variable: expected letters, digits and"
            " underscores, and no digit first"
        )
    if name in RESERVED:
        raise ConfigError(f"the variable `{name}` is set by the enclave itself")
    if variable.secret:
        if len(value) > MAX_CIPHERTEXT_BYTES:
            raise ConfigError(
                f"the ciphertext of `{name}` is {len(value)} bytes long, the limit is"
                f" {MAX_CIPHERTEXT_BYTES}"
            )
        if not CIPHERTEXT.fullmatch(value):
            raise ConfigError(
                f"the value of the secret `{name}` is not a ciphertext of text",
                hint="`cloister env set --secret` encrypts it before it leaves the machine",
            )
        return
    if b"\0" in value:
        raise ConfigError(f"the value of `{name}` has a NUL byte, which no process can be given")
    if len(value) > MAX_VALUE_BYTES:
        raise ConfigError(
            f"the value of `{name}` is {len(value)} bytes long, the limit is {MAX_VALUE_BYTES}"
        )


def _place(enclave_uuid: UUID, name: str) -> str:
    return f"variables/{enclave_uuid}/{name}"


MAX_VALUE_BYTES = 96 * 1024  # execve: one string is at most 128 KiB (execve(2), MAX_ARG_STRLEN)
MAX_CIPHERTEXT_BYTES = 126 * 1024  # below rust/sealing, MAX_ENV_VALUE_BYTES
MAX_SECRET_BYTES = 94 * 1024  # clear text of a secret: its ciphertext is a third longer
# rust/ciphertext token.rs, without the types that are not text; versions that are written here.
CIPHERTEXT = re.compile(
    rb"ev:(?:QkTC|Tk9D):(?:string:)?[A-Za-z0-9+/]{16}:[A-Za-z0-9+/]{44}:[A-Za-z0-9+/]{22,}={0,2}:\$"
)
RESERVED = frozenset({"EV_INITIALIZED"})  # rust/init user/environment.rs
MAX_VARIABLES = 1024
MAX_TOTAL_BYTES = 512 * 1024  # a sealed bundle has to fit in the 1 MiB of the agent API
