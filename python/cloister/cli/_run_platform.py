"""Who releases to the enclave of ``cloister run``: this process, or a platform's server.

Either way the image that is about to run becomes the one active deployment, and everything that can
be known to be wrong is said before an enclave is started for it.
"""

import dataclasses
import datetime as dt
import pathlib
from typing import Protocol
from uuid import UUID

from cloister.cli import _local_key, _owner, output
from cloister.cli._run_plan import RunPlan
from cloister.cli.settings import Settings
from cloister.errors import CloisterError, ConfigError, MissingInput, OutputError, StoreError
from cloister.host.agent import LOOK_EVERY
from cloister.platform import local
from cloister.platform.api_keys import ApiKeys
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.https import PlatformClient, part
from cloister.platform.interface import Platform
from cloister.platform.owner import Json, Owner
from cloister.platform.remote import RemotePlatform
from cloister.platform.remote_owner import RemoteOwner


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What the image that was deployed, its host and its clients are given."""

    platform: Platform
    app_public_key: bytes
    api_key: str | None = dataclasses.field(default=None, repr=False)
    api_key_file: pathlib.Path | None = None


class Backing(Protocol):
    """What a run needs of a platform. Making one changes nothing there: :meth:`deploy` does."""

    state: pathlib.Path
    look_every: dt.timedelta

    def deploy(self, plan: RunPlan) -> Deployed:
        """Makes the image the one active deployment; the caller holds the lock of the enclave.

        Raises:
            CloisterError: What the platform says.
        """

    def report(self, enclave: UUID, kind: str, message: str) -> None:
        """Passes on what the enclave reports."""

    def end_waits(self) -> None:
        """Ends every wait for a change, so that the host can stop."""

    def close(self) -> None:
        """Ends what it started."""


class LocalBacking:
    """The development store beside enclave.toml, in this process.

    Args:
        plan: What is to be run.

    Raises:
        StoreError: There is no store.
    """

    look_every: dt.timedelta = LOOK_EVERY

    def __init__(self, plan: RunPlan) -> None:
        self._store = local.open_store(plan.toml.parent)
        self.state = self._store.directory
        self._platform = EmbeddedPlatform(self._store, development_root=plan.dev_ca / NSM_ROOT_FILE)

    def deploy(self, plan: RunPlan) -> Deployed:
        """Deploys, and makes the API key that the run shows.

        Raises:
            StoreError: The enclave is not in the store.
            ConfigError: Store and image do not belong together.
        """
        public = _deploy(Owner(self._store), plan)
        if not plan.needs_api_key:
            return Deployed(platform=self._platform, app_public_key=public)
        return Deployed(
            platform=self._platform,
            app_public_key=public,
            api_key=_local_key.local_key(ApiKeys(self._store, plan.app), self.state),
            api_key_file=self.state / _local_key.FILE,
        )

    def report(self, enclave: UUID, kind: str, message: str) -> None:
        """Keeps what the enclave reports."""
        self._platform.record_event(enclave, kind, message)

    def end_waits(self) -> None:
        """Ends every wait for a change."""
        self._platform.close()

    def close(self) -> None:
        """Closes the store."""
        self._store.close()


class RemoteBacking:
    """A platform of class development, over HTTPS.

    The host half gets a token for this one enclave. An owner's token makes one, which is revoked at
    the end, or named in a warning, and expires by itself; another token must have the scope
    ``relay`` of its own.

    Args:
        plan: What is to be run.
        env: Says where the platform is, and the token.

    Raises:
        ConfigError: The environment names no platform, or no token.
        OutputError: The folder of the run's state cannot be made.
    """

    look_every: dt.timedelta = dt.timedelta(seconds=5)

    def __init__(self, plan: RunPlan, env: Settings) -> None:
        self._env = env
        self._relay: PlatformClient | None = None
        self._made_token: Json | None = None
        self.state = local.store_directory(plan.toml.parent)
        local.keep_out_of_repositories(self.state.parent)
        try:
            self.state.mkdir(mode=0o700, exist_ok=True)
        except OSError as problem:
            raise OutputError(f"cannot make `{self.state}`: {problem.strerror}") from None
        self._client = _owner.client(env)

    def deploy(self, plan: RunPlan) -> Deployed:
        """Deploys, and makes the token of the host half.

        Raises:
            ConfigError: The platform is of class production, or it and the image do not belong
                together.
            PermissionRefused: The token has not the scopes that are needed.
            TransportError: The platform cannot be reached.
        """
        owner = RemoteOwner(self._client)
        me = owner.who_am_i()
        if me["trust_class"] != "development":
            raise ConfigError(
                f"the platform {self._client.url} is of class `{me['trust_class']}`, and"
                " `cloister run` is for development",
                hint="unset CLOISTER_PLATFORM_URL to run with the local store",
            )
        public = _deploy(owner, plan)
        token = self._env.api_key or ""
        if f"relay:{plan.enclave}" not in me["scopes"]:
            token = self._make_token(owner, plan)
        self._relay = PlatformClient(self._client.url, token, ca_file=self._env.platform_ca)
        return Deployed(platform=RemotePlatform(self._relay), app_public_key=public)

    def report(self, enclave: UUID, kind: str, message: str) -> None:
        """Tells the platform what the enclave reports."""
        if self._relay is not None:
            RemotePlatform(self._relay).record_event(enclave, kind, message)

    def end_waits(self) -> None:
        """Ends waits between attempts; a request in flight ends within seconds."""
        if self._relay is not None:
            self._relay.close()

    def close(self) -> None:
        """Revokes the token that was made, and closes connections."""
        try:
            if self._made_token is not None:
                self._revoke(self._made_token)
        finally:
            if self._relay is not None:
                self._relay.close()
            self._client.close()

    def _make_token(self, owner: RemoteOwner, plan: RunPlan) -> str:
        made = owner.create_token(
            "cloister run",
            scopes=[f"relay:{plan.enclave}"],
            not_after=dt.datetime.now(dt.UTC) + TOKEN_LIFE,
        )
        self._made_token = made
        return str(made["token"])

    def _revoke(self, token: Json) -> None:
        path = f"/v1/tokens/{part(token['id'])}"
        try:
            self._client.send("DELETE", path, deadline_s=REVOKE_SECONDS, may_repeat=True)
        except CloisterError as problem:
            output.warn(
                f"the token {token['id']} of this run is not known to be revoked, and expires"
                f" {token['expires']}: {problem.message};"
                f" `cloister platform token revoke {token['id']}` ends it"
            )


def _deploy(owner: Owner | RemoteOwner, plan: RunPlan) -> bytes:
    """Makes the image the one active deployment, and returns the app's public key."""
    try:
        record = owner.enclave(plan.enclave)
    except MissingInput:
        raise StoreError(
            f"the enclave `{plan.name}` ({plan.enclave}) is not in the store of this folder",
            hint="`cloister init` registers it; a copied enclave.toml needs a uuid of its own",
        ) from None
    if record["app_uuid"] != str(plan.app):
        raise ConfigError(
            f"`app_uuid` of enclave.toml is {plan.app}, the store has {record['app_uuid']}",
            hint="`cloister init` writes the right one",
        )
    if bytes.fromhex(record["service_keys"][0]) not in plan.service_keys:
        raise ConfigError(
            "the image does not trust the service key of this folder's store, and would refuse"
            " every bundle",
            hint="`cloister init` writes it into enclave.toml; then `cloister build`",
        )
    if record["accepts_debug"] != plan.debug:
        owner.set_accepts_debug(plan.enclave, accepts=plan.debug)
    registers = {str(index): value.hex() for index, value in plan.registers.items()}
    owner.add_deployment(plan.enclave, registers, ends_others=True)
    return bytes.fromhex(record["app_public_key"])


NSM_ROOT_FILE = "nsm-root.pem"
REVOKE_SECONDS = 3.0
TOKEN_LIFE = dt.timedelta(days=7)
