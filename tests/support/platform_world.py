"""A development platform with one enclave, its simulated NSM, and a boot to be provisioned.

The documents are simulated, the path is the production one: they are verified, and bundles are
sealed, by the code that a real enclave meets.
"""

import dataclasses
import datetime as dt
import pathlib
import uuid
from typing import Any

from cloister._native import attest as native_attest
from cloister._native import sealing as native_sealing
from cloister.platform import database as databases
from cloister.platform import local
from cloister.platform.api_keys import ApiKeys
from cloister.platform.clock import to_ms
from cloister.platform.database import Database
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.engines import database_url
from cloister.platform.registry import Registry
from cloister.platform.release import PROVISION_USER_DATA
from cloister.platform.trust_class import TrustClass

PCRS = {index: bytes([index + 1]) * 48 for index in (0, 1, 2, 4, 8)}
ZERO = bytes(48)
DEBUG_PCRS = PCRS | {0: ZERO, 1: ZERO, 2: ZERO}


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, start: dt.datetime) -> None:
        self.now = start

    def __call__(self) -> dt.datetime:
        """The present moment."""
        return self.now

    def advance(self, **length: float) -> None:
        """Moves on by a timedelta's arguments."""
        self.now += dt.timedelta(**length)


class SimulatedBoot:
    """One boot of an enclave: an NSM with fixed registers, and an X25519 key."""

    def __init__(
        self,
        clock: ManualClock,
        *,
        pcrs: dict[int, bytes] | None = None,
        root_dir: pathlib.Path | None = None,
    ) -> None:
        self.clock = clock
        self.pcrs = PCRS if pcrs is None else pcrs
        self.nsm = native_attest.SimulatedNsm(
            sorted(self.pcrs.items()),
            module_id="i-0123456789abcdef0-enc0123456789abcdef",
            now_ms=to_ms(clock()),
            root_dir=root_dir,
        )
        self.key = native_sealing.BootKey()

    def document(self, nonce: bytes | None, **changes: Any) -> bytes:
        """A document that asks to be provisioned, as the data plane makes it."""
        fields: dict[str, Any] = {
            "user_data": PROVISION_USER_DATA,
            "nonce": nonce,
            "public_key": self.key.public,
        }
        return self.nsm.document(now_ms=to_ms(self.clock()), **(fields | changes))


@dataclasses.dataclass(frozen=True)
class World:
    """Everything that a test of release needs."""

    directory: pathlib.Path
    store: local.LocalStore
    uuid: uuid.UUID
    clock: ManualClock
    database: Database
    registry: Registry
    keys: ApiKeys
    platform: EmbeddedPlatform
    root_dir: pathlib.Path
    boot: SimulatedBoot
    deployment: str

    def another_boot(self, **changes: Any) -> SimulatedBoot:
        """Another boot under the same development root."""
        return SimulatedBoot(self.clock, root_dir=self.root_dir, **changes)

    def provision(self, boot: SimulatedBoot | None = None, **changes: Any) -> bytes:
        """Challenge, document, bundle: what a boot does first."""
        fields = {"nonce": self.platform.issue_challenge(self.uuid)} | changes
        return self.platform.provision(self.uuid, (boot or self.boot).document(**fields))

    def open(self, sealed: bytes, challenge: bytes, boot: SimulatedBoot | None = None) -> Any:
        """Opens a bundle as the enclave does, with every check of its own."""
        boot = boot or self.boot
        return boot.key.open_bundle(
            sealed,
            service_keys=[self.store.service_public_key],
            enclave=str(self.uuid),
            challenge=challenge,
            pcr0=boot.pcrs[0],
            minimum_version=0,
            now_ms=to_ms(self.clock()),
        )


def make_world(
    directory: pathlib.Path,
    *,
    debug: bool = False,
    url: str | None = None,
    clock: ManualClock | None = None,
) -> World:
    """A store, a registered image, a platform and a boot of that image.

    With ``url`` the store is in that PostgreSQL database, else it is the local one of a folder.
    """
    clock = clock or ManualClock(dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC))
    enclave = uuid.uuid4()
    if url is None:
        store = local.init_store(directory, name="hello", uuid=enclave, debug=debug, clock=clock)
        database = local.open_store(directory)
    else:
        database = databases.create(
            directory / "store", TrustClass.DEVELOPMENT, now_ms=0, url=database_url(url)
        )
        store = _fill(database, enclave, debug=debug, clock=clock)
    registry = Registry(database, clock)
    pcrs = DEBUG_PCRS if debug else PCRS
    root_dir = directory / "dev-ca"
    boot = SimulatedBoot(clock, pcrs=pcrs, root_dir=root_dir)
    deployment = registry.add_deployment(
        enclave, {index: pcrs[index] for index in ((0, 1, 2, 4) if debug else (0, 1, 2))}
    )
    return World(
        directory=directory,
        store=store,
        uuid=enclave,
        clock=clock,
        database=database,
        registry=registry,
        keys=ApiKeys(database, store.app_uuid, clock),
        platform=EmbeddedPlatform(
            database, development_root=root_dir / "nsm-root.pem", clock=clock
        ),
        root_dir=root_dir,
        boot=boot,
        deployment=deployment,
    )


def _fill(
    database: Database, enclave: uuid.UUID, *, debug: bool, clock: ManualClock
) -> local.LocalStore:
    """What ``local.init_store`` puts into a store."""
    registry = Registry(database, clock)
    team = registry.add_team("local")
    app = registry.add_app(team, "local")
    public = registry.add_service_key(team)
    registry.add_enclave(
        app, "hello", uuid=enclave, trust_class=TrustClass.DEVELOPMENT, accepts_debug=debug
    )
    return local.LocalStore(
        service_public_key=public, app_uuid=app, team_uuid=team, directory=database.directory
    )
