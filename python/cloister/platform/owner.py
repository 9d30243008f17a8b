"""Everything an owner asks of a platform, on a store that is open in this process.

What goes in and out is what JSON can say: the server of :mod:`cloister.platform.server` hands it on
as it is, :class:`~cloister.platform.remote_owner.RemoteOwner` asks for the same over HTTPS, and a
command works with either. Keys and PCRs are hexadecimal, values of variables base64.

Who may ask for what is decided before, in the server; a local store belongs to who can read it.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import select

from cloister.errors import ConfigError, MissingInput
from cloister.platform import app_keys, history, json_forms, removal
from cloister.platform.api_keys import ApiKeyRecord, ApiKeys
from cloister.platform.clock import Clock, from_ms, system, to_ms
from cloister.platform.database import Database
from cloister.platform.records import EnclaveRecord, fresh_uuid
from cloister.platform.registry import EnclaveChange, Registry
from cloister.platform.tables import App, AppKey, Enclave, Team
from cloister.platform.tokens import TokenRecord, Tokens
from cloister.platform.trust_class import TrustClass
from cloister.platform.variables import NewVariable, Variables

Json = dict[str, Any]


class Owner:
    """The owner's calls. Every method may be called from any thread.

    Args:
        database: The open store.
        clock: The platform's time.
    """

    def __init__(self, database: Database, clock: Clock = system) -> None:
        self._database = database
        self._clock = clock
        self._registry = Registry(database, clock)
        self._tokens = Tokens(database, clock)

    def apps(self) -> list[Json]:
        """Every app, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(App).order_by(App.name, App.uuid)).all()
            return [self._app(row, app_keys.newest(session, row.uuid)) for row in rows]

    def app(self, app_uuid: UUID) -> Json:
        """One app.

        Raises:
            MissingInput: There is no such app.
        """
        with self._database.reading() as session:
            row = session.get(App, app_uuid)
            if row is None:
                raise MissingInput(f"there is no app `{app_uuid}`")
            return self._app(row, app_keys.newest(session, app_uuid))

    def add_app(self, name: str) -> Json:
        """Adds an app with its first key pair, to the one team.

        Raises:
            ConfigError: Not a DNS label, or there is an app of this name.
        """
        return self.app(self._registry.add_app(self._team(), name))

    def app_keys(self, app_uuid: UUID) -> list[Json]:
        """Public halves of an app's key pairs, oldest first."""
        self.app(app_uuid)
        with self._database.reading() as session:
            return [
                {
                    "id": pair.id,
                    "curve": pair.curve,
                    "public": pair.public.hex(),
                    "created": json_forms.text(from_ms(pair.created_ms)),
                }
                for pair in app_keys.public_pairs(session, app_uuid)
            ]

    def add_app_key(
        self, app_uuid: UUID, *, curve: str = "P-256", private: str | None = None
    ) -> Json:
        """Adds a key pair; see :meth:`Registry.add_app_key`. ``private`` is base64.

        Raises:
            ConfigError: An unknown curve, not a private half of it, or too many pairs.
            MissingInput: There is no such app.
        """
        for known in get_args(app_keys.Curve):
            if curve == known:
                half = None if private is None else json_forms.decoded(private, "private")
                public = self._registry.add_app_key(app_uuid, curve=known, private=half)
                return {"curve": known, "public": public.hex()}
        raise ConfigError("a curve is P-256 or secp256k1")

    def enclaves(self, app_uuid: UUID | None = None) -> list[Json]:
        """Enclaves of an app, or all of them, by name."""
        query = select(Enclave.uuid).order_by(Enclave.name, Enclave.uuid)
        if app_uuid is not None:
            query = query.where(Enclave.app_uuid == app_uuid)
        with self._database.reading() as session:
            uuids = session.scalars(query).all()
        return [self.enclave(uuid) for uuid in uuids]

    def enclave(self, uuid: UUID) -> Json:
        """One enclave, with what its image has to trust and its clients encrypt to.

        Raises:
            MissingInput: There is no such enclave.
        """
        record = self._record(uuid)
        keys = self._registry.service_public_keys(record.team_uuid)
        return {
            "uuid": str(record.uuid),
            "name": record.name,
            "app_uuid": str(record.app_uuid),
            "team_uuid": str(record.team_uuid),
            "trust_class": record.trust_class.value,
            "accepts_debug": record.accepts_debug,
            "bundle_version": record.bundle_version,
            "max_boots": record.max_boots,
            "signers": [signer.hex() for signer in record.signers],
            "service_keys": [key.hex() for key in keys],
            "app_public_key": self._registry.app_public_key(record.app_uuid).hex(),
        }

    def app_of(self, enclave_uuid: UUID) -> UUID | None:
        """The app of an enclave, or ``None`` when there is no such enclave."""
        record = self._registry.enclave(enclave_uuid)
        return None if record is None else record.app_uuid

    def add_enclave(
        self,
        app_uuid: UUID,
        name: str,
        *,
        uuid: UUID | None = None,
        debug: bool = False,
        signers: Sequence[str] = (),
    ) -> Json:
        """Registers an enclave of the store's class, or a debug enclave.

        Raises:
            ConfigError: Not a DNS label, a signer that is not a PCR8, or the uuid is registered.
            MissingInput: There is no such app.
        """
        store = self._database.trust_class
        is_debug = debug and store is TrustClass.PRODUCTION
        made = uuid or fresh_uuid()
        self._registry.add_enclave(
            app_uuid,
            name,
            uuid=made,
            trust_class=TrustClass.DEBUG if is_debug else store,
            accepts_debug=debug,
            signers=[json_forms.unhex(signer, "signers") for signer in signers],
        )
        return self.enclave(made)

    def change_enclave(self, uuid: UUID, change: EnclaveChange) -> Json:
        """Changes what is named, all or nothing; see :meth:`Registry.change_enclave`."""
        self._registry.change_enclave(uuid, change)
        return self.enclave(uuid)

    def set_accepts_debug(self, uuid: UUID, *, accepts: bool) -> Json:
        """Whether a development enclave may have zero PCRs."""
        return self.change_enclave(uuid, {"accepts_debug": accepts})

    def set_max_boots(self, uuid: UUID, count: int | None) -> Json:
        """How often an enclave may run at one time; any number, when ``None``."""
        return self.change_enclave(uuid, {"max_boots": count})

    def delete_enclave(self, uuid: UUID) -> None:
        """Removes an enclave; see :func:`~cloister.platform.removal.delete_enclave`."""
        removal.delete_enclave(self._database, uuid, self._clock)

    def deployments(self, enclave_uuid: UUID) -> list[Json]:
        """Deployments of an enclave, oldest first.

        Raises:
            MissingInput: There is no such enclave.
        """
        self._record(enclave_uuid)
        now_ms = to_ms(self._clock())
        return [
            {
                "id": record.id,
                "enclave_uuid": str(record.enclave_uuid),
                "pcrs": {str(index): value.hex() for index, value in record.pcrs.items()},
                "active": record.is_active(now_ms),
                "until": None
                if record.until_ms is None
                else json_forms.text(from_ms(record.until_ms)),
                "created": json_forms.text(from_ms(record.created_ms)),
            }
            for record in self._registry.deployments(enclave_uuid)
        ]

    def add_deployment(
        self,
        enclave_uuid: UUID,
        pcrs: Mapping[str, str],
        *,
        ends_others: bool = False,
        until: dt.datetime | None = None,
    ) -> Json:
        """Registers an image and makes it active.

        Args:
            enclave_uuid: The enclave whose image it is.
            pcrs: Registers by index, hexadecimal.
            ends_others: Ends every other deployment in the same transaction.
            until: When it ends by itself.

        Raises:
            ConfigError: A register is missing, has another length or index, or the class does not
                allow it.
            MissingInput: There is no such enclave.
        """
        registers = {}
        for index, value in pcrs.items():
            if not (index.isascii() and index.isdigit() and len(index) <= len("31")):
                raise ConfigError("a PCR index is not between 0 and 31")
            registers[int(index)] = json_forms.unhex(value, f"PCR{int(index)}")
        made = self._registry.add_deployment(
            enclave_uuid, registers, ends_others=ends_others, until=until
        )
        return next(one for one in self.deployments(enclave_uuid) if one["id"] == made)

    def end_deployment(self, enclave_uuid: UUID, deployment_id: str) -> None:
        """Ends a deployment of this enclave.

        Raises:
            MissingInput: The enclave has no such deployment.
        """
        if all(one["id"] != deployment_id for one in self.deployments(enclave_uuid)):
            raise MissingInput("the enclave has no deployment of this id")
        self._registry.end_deployment(deployment_id)

    def api_keys(
        self, app_uuid: UUID, *, limit: int | None = None, after: str | None = None
    ) -> list[Json]:
        """API keys of an app, oldest first, without the keys; those behind ``after``.

        Raises:
            MissingInput: There is no such app, or it has no key of the id ``after``.
        """
        self.app(app_uuid)
        found = self._keys(app_uuid).all(limit=limit, after=after)
        return [self._shown(record) for record in found]

    def create_api_key(
        self, app_uuid: UUID, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None
    ) -> Json:
        """Makes an API key; the answer's ``api_key`` is shown this once.

        Raises:
            ConfigError: See :meth:`ApiKeys.create`.
            MissingInput: There is no such app, or a scope names an enclave it does not have.
        """
        made = self._keys(app_uuid).create(name, scopes=scopes, not_after=not_after)
        return {"api_key": made.secret, **self._shown(made.record)}

    def revoke_api_key(self, app_uuid: UUID, key_id: str) -> Json:
        """Ends an API key.

        Raises:
            MissingInput: The app has no such key.
        """
        return self._shown(self._keys(app_uuid).revoke(key_id))

    def variables(self, enclave_uuid: UUID) -> list[Json]:
        """Variables of an enclave by name; ``value`` is absent for a secret."""
        self._record(enclave_uuid)
        return [json_forms.variable(record) for record in self._variables(enclave_uuid).all()]

    def variable(self, enclave_uuid: UUID, name: str) -> Json:
        """One variable.

        Raises:
            MissingInput: There is no such enclave or variable.
        """
        self._record(enclave_uuid)
        return json_forms.variable(self._variables(enclave_uuid).get(name))

    def set_variables(self, enclave_uuid: UUID, variables: Sequence[Json]) -> None:
        """Sets variables, ``{name, value, secret}`` each, all of them or none.

        Raises:
            ConfigError: See :meth:`Variables.set_all`.
            MissingInput: There is no such enclave.
        """
        self._variables(enclave_uuid).set_all(
            [
                NewVariable(
                    name=one["name"],
                    value=json_forms.decoded(one["value"], "value"),
                    secret=bool(one["secret"]),
                )
                for one in variables
            ]
        )

    def delete_variable(self, enclave_uuid: UUID, name: str) -> None:
        """Removes a variable.

        Raises:
            MissingInput: There is no such enclave or variable.
        """
        self._record(enclave_uuid)
        self._variables(enclave_uuid).delete(name)

    def service_keys(self) -> list[str]:
        """Public halves of the service keys in use, oldest first: the first of them signs."""
        return [key.hex() for key in self._registry.service_public_keys(self._team())]

    def add_service_key(self) -> list[str]:
        """Adds a service key, for images that are built from here on; the oldest goes on signing.

        Raises:
            ConfigError: There are as many as an image can trust.
        """
        self._registry.add_service_key(self._team())
        return self.service_keys()

    def retire_service_key(self, public: str) -> list[str]:
        """Ends a service key; the next one signs.

        Raises:
            ConfigError: Not hexadecimal, or it is the only one.
            MissingInput: There is no such key in use.
        """
        self._registry.retire_service_key(json_forms.unhex(public, "public"))
        return self.service_keys()

    def tokens(self, *, limit: int | None = None, after: str | None = None) -> list[Json]:
        """Tokens of the platform, oldest first, without the tokens; those behind ``after``.

        Raises:
            MissingInput: There is no token of the id ``after``.
        """
        return [self._shown(record) for record in self._tokens.all(limit=limit, after=after)]

    def create_token(
        self, name: str, *, scopes: Sequence[str], not_after: dt.datetime | None
    ) -> Json:
        """Makes a token; the answer's ``token`` is shown this once."""
        made = self._tokens.create(name, scopes=scopes, not_after=not_after)
        return {"token": made.secret, **self._shown(made.record)}

    def revoke_token(self, token_id: str) -> Json:
        """Ends a token."""
        return self._shown(self._tokens.revoke(token_id))

    def activity(self, *, limit: int, before: int | None = None) -> list[Json]:
        """What changed, newest first; ``before`` is the ``id`` that the page before ended with."""
        return history.activity(self._database, limit=limit, before=before)

    def releases(self, enclave_uuid: UUID, *, limit: int, before: int | None = None) -> list[Json]:
        """Bundles that were released to an enclave, and refusals, newest first.

        Those to one that was deleted stay.

        Raises:
            MissingInput: There is no such enclave, and there are no such records.
        """
        found = history.releases(self._database, enclave_uuid, limit=limit, before=before)
        if not found and before is None:
            self._record(enclave_uuid)
        return found

    def events(self, enclave_uuid: UUID, *, limit: int, before: int | None = None) -> list[Json]:
        """What hosts reported of an enclave, newest first; nobody vouches for it."""
        self._record(enclave_uuid)
        return history.events(self._database, enclave_uuid, limit=limit, before=before)

    def _team(self) -> UUID:
        with self._database.reading() as session:
            return session.scalars(select(Team.uuid).order_by(Team.created_ms).limit(1)).one()

    def _record(self, uuid: UUID) -> EnclaveRecord:
        record = self._registry.enclave(uuid)
        if record is None:
            raise MissingInput(f"there is no enclave `{uuid}`")
        return record

    def _keys(self, app_uuid: UUID) -> ApiKeys:
        return ApiKeys(self._database, app_uuid, self._clock)

    def _variables(self, enclave_uuid: UUID) -> Variables:
        return Variables(self._database, enclave_uuid, self._clock)

    def _shown(self, record: ApiKeyRecord | TokenRecord) -> Json:
        return {
            "id": record.id,
            "name": record.name,
            "scopes": list(record.scopes),
            "state": record.state(self._clock()),
            "created": json_forms.text(record.created),
            "expires": None if record.not_after is None else json_forms.text(record.not_after),
            "revoked": None if record.revoked is None else json_forms.text(record.revoked),
        }

    def _app(self, row: App, key: AppKey | None) -> Json:
        return {
            "uuid": str(row.uuid),
            "name": row.name,
            "team_uuid": str(row.team_uuid),
            "created": json_forms.text(from_ms(row.created_ms)),
            "service_keys": [
                public.hex() for public in self._registry.service_public_keys(row.team_uuid)
            ],
            "public_key": None if key is None else key.public.hex(),
        }
