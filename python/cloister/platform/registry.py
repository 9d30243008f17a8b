"""The registry: teams, apps, enclaves, deployments, and the keys that belong to them.

Everything here is the owner's own action; nothing comes from a host or an enclave. A change that
running enclaves should see raises the version of their bundle in the same transaction, so a bundle
never carries new content under an old number.
"""

import datetime as dt
import secrets
from collections.abc import Iterable, Mapping
from typing import TypedDict
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from cloister.errors import ConfigError, MissingInput
from cloister.platform import app_keys, removal, rules, service_keys
from cloister.platform.clock import Clock, system, to_ms
from cloister.platform.database import Database
from cloister.platform.records import (
    DeploymentRecord,
    EnclaveRecord,
    bump_versions,
    check_room,
    checked_name,
    checked_register,
    fresh_uuid,
    read_deployments,
    read_enclave,
    record_activity,
)
from cloister.platform.tables import (
    App,
    Deployment,
    Enclave,
    EnclaveSigner,
    Team,
)
from cloister.platform.trust_class import TrustClass


class EnclaveChange(TypedDict, total=False):
    """What may be changed of an enclave; what is left out stays.

    Args:
        accepts_debug: Whether an enclave of class development may have zero PCRs.
        max_boots: How often it may run at one time, any number when ``None``; what runs goes on.
    """

    accepts_debug: bool
    max_boots: int | None


class Registry:
    """Reads and changes the registry of one store.

    Args:
        database: The open store.
        clock: Source of the times that are written.
    """

    def __init__(self, database: Database, clock: Clock = system) -> None:
        self._database = database
        self._clock = clock

    def add_team(self, name: str) -> UUID:
        """Adds a team and returns its uuid.

        Raises:
            ConfigError: The name is not a DNS label.
        """
        team = Team(uuid=fresh_uuid(), name=checked_name(name), created_ms=self._now_ms())
        with self._database.writing() as session:
            session.add(team)
            self._record(session, "team.add", str(team.uuid), f"team `{team.name}` added")
        return team.uuid

    def add_app(self, team_uuid: UUID, name: str) -> UUID:
        """Adds an app with its first key pair and returns its uuid.

        Raises:
            ConfigError: The name is not a DNS label, or the team has an app of this name.
            MissingInput: There is no such team.
        """
        app = App(
            uuid=fresh_uuid(),
            team_uuid=team_uuid,
            name=checked_name(name),
            created_ms=self._now_ms(),
        )
        with self._database.writing() as session:
            if session.get(Team, team_uuid) is None:
                raise MissingInput(f"there is no team `{team_uuid}` in this store")
            _check_free(session, team_uuid, app.name)
            check_room(session, select(App.uuid), MAX_APPS, "apps")
            session.add(app)
            session.flush()
            self._record(session, "app.add", str(app.uuid), f"app `{app.name}` added")
            app_keys.add(session, self._database.vault, app.uuid, now_ms=self._now_ms())
        return app.uuid

    def add_app_key(
        self, app_uuid: UUID, *, curve: app_keys.Curve = "P-256", private: bytes | None = None
    ) -> bytes:
        """Adds a key pair to an app: data is encrypted to the newest of P-256, all of them open.

        Args:
            app_uuid: The app.
            curve: ``P-256``, or ``secp256k1`` for data that was encrypted to such a key.
            private: The private half of a pair that exists, 32 bytes; a new pair when absent.

        Returns:
            The public half, compressed (SEC 1, 33 bytes).

        Raises:
            ConfigError: ``private`` is not a private half of this curve, or the app has as many
                pairs of it as an enclave takes, :data:`~cloister.platform.app_keys.MAX_PAIRS`.
            MissingInput: There is no such app.
        """
        with self._database.writing() as session:
            if session.get(App, app_uuid) is None:
                raise MissingInput(f"there is no app `{app_uuid}` in this store")
            row = app_keys.add(
                session,
                self._database.vault,
                app_uuid,
                now_ms=self._now_ms(),
                curve=curve,
                private=private,
            )
            bump_versions(session, app_uuid=app_uuid)
        return row.public

    def app_public_key(self, app_uuid: UUID) -> bytes:
        """The public key to encrypt to: the newest of P-256, compressed (SEC 1, 33 bytes).

        Raises:
            MissingInput: There is no such app.
        """
        with self._database.reading() as session:
            newest = app_keys.newest(session, app_uuid)
        if newest is None:
            raise MissingInput(f"there is no app `{app_uuid}` in this store")
        return newest.public

    def add_service_key(self, team_uuid: UUID) -> bytes:
        """Adds a service key (Ed25519), which signs bundles, and returns its public half.

        Raises:
            ConfigError: There are :data:`~cloister.platform.service_keys.MAX_IN_USE` in use.
        """
        with self._database.writing() as session:
            return service_keys.add(session, self._database.vault, team_uuid, now_ms=self._now_ms())

    def retire_service_key(self, public: bytes) -> None:
        """Ends a service key: bundles are signed by the next one, which images must know by then.

        Raises:
            ConfigError: It is the only one in use.
            MissingInput: There is no such key in use.
        """
        with self._database.writing() as session:
            service_keys.retire(session, public, now_ms=self._now_ms())

    def add_enclave(  # noqa: PLR0913 - the columns of a record, named at the call
        self,
        app_uuid: UUID,
        name: str,
        *,
        uuid: UUID,
        trust_class: TrustClass,
        accepts_debug: bool = False,
        signers: Iterable[bytes] = (),
    ) -> None:
        """Registers an enclave.

        Args:
            app_uuid: Its app.
            name: DNS label.
            uuid: Its identity, as its ``enclave.toml`` says.
            trust_class: Which root its documents must lead to.
            accepts_debug: Released to with zero PCRs too, when a deployment pins PCR4.
            signers: PCR8 values, 48 bytes each: images must carry one of them. None: any.

        Raises:
            ConfigError: Another class than the store holds, or ``accepts_debug`` contradicts it; or
                the uuid is registered or was deleted, or the app has :data:`MAX_ENCLAVES`, or
                enclaves of another class.
            MissingInput: There is no such app.
        """
        rules.check_class(self._database.trust_class, trust_class, accepts_debug=accepts_debug)
        with self._database.writing() as session:
            if session.get(App, app_uuid) is None:
                raise MissingInput(f"there is no app `{app_uuid}` in this store")
            if session.get(Enclave, uuid) is not None:
                raise ConfigError(f"the enclave `{uuid}` is registered already")
            removal.check_unused(session, uuid)
            others = select(Enclave.trust_class).where(
                Enclave.app_uuid == app_uuid, Enclave.trust_class != trust_class.value
            )
            if (other := session.scalars(others.limit(1)).first()) is not None:
                raise ConfigError(
                    f"the app has enclaves of class `{other}`: one of class `{trust_class.value}`"
                    " would get the same keys",
                    hint="`cloister platform app create NAME` makes an app for it",
                )
            same_app = select(Enclave.uuid).where(Enclave.app_uuid == app_uuid)
            check_room(session, same_app, MAX_ENCLAVES, "enclaves of this app")
            session.add(
                Enclave(
                    uuid=uuid,
                    app_uuid=app_uuid,
                    name=checked_name(name),
                    trust_class=trust_class.value,
                    accepts_debug=accepts_debug,
                    bundle_version=1,
                    created_ms=self._now_ms(),
                )
            )
            session.flush()
            session.add_all(
                EnclaveSigner(enclave_uuid=uuid, pcr8=checked_register(8, value))
                for value in signers
            )
            self._record(session, "enclave.add", str(uuid), f"enclave `{name}` added")

    def change_enclave(self, uuid: UUID, change: EnclaveChange) -> None:
        """Changes what is named of an enclave, all of it or nothing.

        Raises:
            ConfigError: ``accepts_debug`` of another class than development, where it is part of
                what the enclave is; or ``max_boots`` is not between 1 and :data:`MAX_BOOTS`.
            MissingInput: There is no such enclave.
        """
        with self._database.writing() as session:
            row = session.get(Enclave, uuid)
            if row is None:
                raise MissingInput(f"there is no enclave `{uuid}` in this store")
            if "accepts_debug" in change:
                accepts = change["accepts_debug"]
                if row.trust_class != TrustClass.DEVELOPMENT.value:
                    raise ConfigError(
                        "whether an enclave accepts zero PCRs is decided when it is registered"
                    )
                row.accepts_debug = accepts
                self._record(session, "enclave.debug", str(uuid), f"accepts zero PCRs: {accepts}")
            if "max_boots" in change:
                count = change["max_boots"]
                if count is not None and not 1 <= count <= MAX_BOOTS:
                    raise ConfigError(f"an enclave runs 1 to {MAX_BOOTS} times, or without a limit")
                row.max_boots = count
                shown = "any number" if count is None else str(count)
                self._record(session, "enclave.boots", str(uuid), f"may run at one time: {shown}")

    def enclave(self, uuid: UUID) -> EnclaveRecord | None:
        """A registered enclave, or ``None``."""
        with self._database.reading() as session:
            return read_enclave(session, uuid)

    def add_deployment(
        self,
        enclave_uuid: UUID,
        pcrs: Mapping[int, bytes],
        *,
        ends_others: bool = False,
        until: dt.datetime | None = None,
    ) -> str:
        """Registers an image and makes it active; the same registers again are the same deployment.

        Args:
            enclave_uuid: The enclave whose image it is.
            pcrs: Registers its document must have, 48 bytes each: 0, 1 and 2 at least. An enclave
                of class debug has zero there and must name register 4 (its parent) as well.
            ends_others: End every other deployment of the enclave in the same transaction: of two
                that ask for this at one time the later one's image stays.
            until: When it ends by itself: bundles end then at the latest. Never, when absent.

        Raises:
            ConfigError: ``until`` is past, a register is missing or has another length, or the
                class does not allow zero PCRs.
            MissingInput: There is no such enclave.
        """
        if until is not None and until <= self._clock():
            raise ConfigError("the deployment would end in the past")
        until_ms = None if until is None else to_ms(until)
        with self._database.writing() as session:
            record = read_enclave(session, enclave_uuid)
            if record is None:
                raise MissingInput(f"there is no enclave `{enclave_uuid}` in this store")
            registers = rules.checked_registers(record, pcrs)
            same = session.scalars(
                select(Deployment).where(Deployment.enclave_uuid == enclave_uuid)
            ).all()
            found = next((row for row in same if row.pcrs == registers), None)
            for row in same if ends_others else ():
                if row is not found:
                    self._end(session, row)
            if found is None:
                mine = select(Deployment.id).where(Deployment.enclave_uuid == enclave_uuid)
                check_room(session, mine, MAX_DEPLOYMENTS, "deployments of this enclave")
                found = Deployment(
                    id=f"dep_{secrets.token_hex(8)}",
                    enclave_uuid=enclave_uuid,
                    pcrs=registers,
                    active=True,
                    created_ms=self._now_ms(),
                    until_ms=until_ms,
                )
                session.add(found)
                self._record(session, "deployment.add", found.id, "deployment registered")
                return found.id
            if found.until_ms != until_ms:
                found.until_ms = until_ms
                bump_versions(session, enclave_uuid=enclave_uuid)  # bundles end with it
                self._record(session, "deployment.until", found.id, "end of deployment changed")
            if not found.active:
                found.active = True
                found.ended_ms = None
                self._record(session, "deployment.activate", found.id, "deployment active again")
            return found.id

    def end_deployment(self, deployment_id: str) -> None:
        """Ends a deployment: nothing more is released to its enclaves.

        Raises:
            MissingInput: There is no such deployment.
        """
        with self._database.writing() as session:
            row = session.get(Deployment, deployment_id)
            if row is None:
                raise MissingInput(f"there is no deployment `{deployment_id}` in this store")
            self._end(session, row)

    def deployments(self, enclave_uuid: UUID) -> list[DeploymentRecord]:
        """Every deployment of an enclave, oldest first."""
        with self._database.reading() as session:
            return read_deployments(session, enclave_uuid)

    def sole_app(self) -> tuple[UUID, UUID] | None:
        """App and team of a store that has exactly one app, as local ones do; else ``None``."""
        with self._database.reading() as session:
            apps = session.scalars(select(App).limit(2)).all()
        return (apps[0].uuid, apps[0].team_uuid) if len(apps) == 1 else None

    def sole_team(self) -> UUID | None:
        """The team of a store that has exactly one; else ``None``."""
        with self._database.reading() as session:
            teams = session.scalars(select(Team.uuid).limit(2)).all()
        return teams[0] if len(teams) == 1 else None

    def first_app(self, team_uuid: UUID) -> UUID | None:
        """The oldest app of a team, or ``None``."""
        with self._database.reading() as session:
            return session.scalars(
                select(App.uuid)
                .where(App.team_uuid == team_uuid)
                .order_by(App.created_ms, App.uuid)
                .limit(1)
            ).one_or_none()

    def service_public_keys(self, team_uuid: UUID) -> list[bytes]:
        """Public halves of a team's service keys in use, oldest first."""
        with self._database.reading() as session:
            return service_keys.public_halves(session, team_uuid)

    def _end(self, session: Session, row: Deployment) -> None:
        if row.active:
            row.active = False
            row.ended_ms = self._now_ms()
            self._record(session, "deployment.end", row.id, "deployment ended")

    def _record(self, session: Session, kind: str, subject: str, message: str) -> None:
        record_activity(session, self._now_ms(), kind, subject, message)

    def _now_ms(self) -> int:
        return to_ms(self._clock())


def _check_free(session: Session, team_uuid: UUID, name: str) -> None:
    same = select(App.uuid).where(App.team_uuid == team_uuid, App.name == name)
    if session.scalars(same).first() is not None:
        raise ConfigError(f"there is an app `{name}` already")


MAX_APPS = 1024
MAX_ENCLAVES = 1024  # of an app
MAX_BOOTS = 10_000
MAX_DEPLOYMENTS = 4096  # of an enclave
