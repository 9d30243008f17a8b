"""An enclave in this process: the real data plane, over an application, with a root of its own."""

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import secrets
import threading
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from cloister import attest, client, crypto
from cloister._native import attest as _native
from cloister.dev import ApiKey, DataPlane
from cloister.errors import UsageError
from cloister.testing.application import Asgi, Handler, Server, echo
from cloister.testing.authority import Authority
from cloister.testing.document import Registers, Root, another_image, registers
from cloister.testing.fault import Fault
from cloister.testing.place import AppKey, Place
from cloister.testing.play import booted


class SimulatedEnclave:
    """The data plane of an enclave over an application, and everything a client needs of it.

    It runs between :meth:`start` and :meth:`close`; as a context manager inside the block. URL, CA,
    keys and root stay the same for the whole of its life, whatever happens to it. What happens to
    it ends its connections, as the restart of an enclave does, so whoever comes next attests again.

    Safe to share between threads; several of them run beside each other, in one process or many.

    Args:
        app: What is behind it: an ASGI application (see also :func:`cloister.testing.wsgi` and
            :func:`cloister.testing.handler`), which is run here; or the address of one that runs,
            ``HOST:PORT`` or ``unix:PATH``. Without it a request is answered with itself, in JSON.
        pcrs: Its registers; the others are zero. :meth:`cloister.attest.Measurements.from_toml`
            has those of a build. All zero is an enclave in debug mode.
        config: As :class:`cloister.dev.DataPlane`'s: the path of an ``enclave.toml``, or settings
            that are laid over the defaults. TLS has to end in the enclave.
        api_keys: Keys to accept; one is made when there is none. The first is :attr:`api_key`.
        env: Variables, as the internal API shows them.
        internal_api: Where the internal API is served, ``HOST:PORT``; it is not without.
        logs: File for the transaction logs.
        hosts: Names that its TLS certificates have besides ``localhost``, for clients that reach it
            by one; who resolves them is the test's affair.
        timeout: Seconds that a start, or a stop, may take.

    Raises:
        PolicyError: ``pcrs`` cannot be registers.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by keyword
        self,
        app: Asgi | str | None = None,
        *,
        pcrs: Registers | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        api_keys: Sequence[str | ApiKey] = (),
        env: Mapping[str, str | bytes] | None = None,
        internal_api: str | None = None,
        logs: str | os.PathLike[str] | None = None,
        hosts: Sequence[str] = (),
        timeout: float = 15.0,
    ) -> None:
        self._app: Asgi | str = Handler(echo) if app is None else app
        self._timeout = timeout
        self._hosts = tuple(hosts)
        self._pcrs = registers(pcrs)
        keys = list(api_keys) or [f"ck_test_{secrets.token_urlsafe(32)}"]
        if config is None or isinstance(config, Mapping):
            # The same in every boot.
            uuids = {key: str(uuid.uuid4()) for key in ("uuid", "app_uuid", "team_uuid")}
            config = {**uuids, **(config or {})}
        self._settings: dict[str, Any] = {
            "config": config,
            "api_keys": keys,
            "env": env,
            "internal_api": internal_api,
            "logs": logs,
            "start_timeout": dt.timedelta(seconds=timeout),
        }
        self.api_key = keys[0] if isinstance(keys[0], str) else keys[0].value
        """The first API key."""
        self._lock = threading.RLock()
        self.root = Root()
        """The root of its documents, for documents of your own that its clients believe."""
        self._authority = Authority()
        self._identity = self._authority.identity(hosts=self._hosts)
        self._playing: list[_Played] = []
        """What is played, in the order in which it began; the last counts."""
        self._app_key = AppKey()
        self._is_started = False
        self._plane: DataPlane | None = None
        self._server: Server | None = None
        self._place: Place | None = None

    # What a client needs to know of it.

    @property
    def url(self) -> str:
        """Where clients connect: ``https://localhost:PORT``."""
        return f"https://localhost:{self._here().port}"

    @property
    def ca_file(self) -> pathlib.Path:
        """The CA of its TLS certificates, PEM."""
        return self._here().ca_file

    @property
    def nsm_root_file(self) -> pathlib.Path:
        """The root of its documents, PEM: for ``--dangerous-root`` of the command line."""
        return self._here().nsm_root_file

    @property
    def trust_anchor(self) -> attest.TrustAnchor:
        """The root of its documents. Nothing but this enclave can sign under it."""
        return self.root.trust_anchor

    @property
    def tls_spki(self) -> bytes:
        """``SubjectPublicKeyInfo`` of its TLS key now, DER: what its documents are bound to."""
        return self._identity.spki

    @property
    def measurements(self) -> attest.Measurements:
        """Its registers now, those that identify its code."""
        return attest.Measurements(self._pcrs)

    @property
    def app_public_key(self) -> bytes:
        """The app's public key, compressed (SEC 1): what clients encrypt to."""
        return self._app_key.public

    @property
    def data_plane(self) -> DataPlane:
        """The data plane of this boot: its health, its counters, its keys, its internal API.

        Raises:
            UsageError: The enclave is down.
        """
        plane = self._plane
        if plane is None:
            raise UsageError("the enclave is down")
        return plane

    def policy(self, **changes: Any) -> attest.Policy:  # noqa: ANN401 - as attest.Policy has them
        """What it proves now, but for ``changes``, as :class:`cloister.attest.Policy`'s."""
        settings = {
            "measurements": self.measurements,
            "trust_anchor": self.trust_anchor,
            **changes,
        }
        return attest.Policy(**settings)

    def session(
        self,
        policy: attest.Policy | None = None,
        **options: Any,  # noqa: ANN401 - as client.Session has them
    ) -> client.Session:
        """A :class:`cloister.client.Session` with it, the caller's to close.

        Args:
            policy: What is accepted; what it proves now without. The measurements of a
                ``pcr_provider`` among the options take the place of its own.
            options: Of the session; CA file and API key are there already.
        """
        return client.Session(self.url, policy or self.policy(), **self._known(options))

    def client(
        self,
        policy: attest.Policy | None = None,
        **options: Any,  # noqa: ANN401 - as client.Enclave has them
    ) -> client.Enclave:
        """A :class:`cloister.client.Enclave` for the other transports; as :meth:`session`."""
        return client.Enclave(self.url, policy or self.policy(), **self._known(options))

    def encrypt(self, value: Any, *, role: str | None = None) -> Any:  # noqa: ANN401 - crypto.encrypt's
        """:func:`cloister.crypto.encrypt` for its app."""
        return crypto.encrypt(value, self.app_public_key, role=role)

    # What happens to it.

    def start(self) -> Self:
        """Starts it, or starts it again after :meth:`stop`; returns when it accepts traffic.

        Raises:
            UsageError: It runs already, TLS does not end in it, or an address cannot be read.
            MissingInput, ConfigError: The configuration, or an API key, cannot be used.
            RunnerError: The application or the data plane does not start in time.
        """
        with self._lock:
            if self._is_started:
                raise UsageError("the enclave runs already")
            try:
                if self._place is None:
                    self._place = Place(
                        ca_pem=self._authority.pem,
                        nsm_root_pem=self.root.pem,
                        app_key=self._app_key.as_file(),
                    )
                self._boot()
            except BaseException:
                self.close()
                raise
            self._is_started = True
        return self

    def stop(self) -> None:
        """Takes it down; connections are refused until :meth:`start`. The application goes on."""
        with self._lock:
            self._is_started = False
            self._end_boot()

    def rotate_tls_key(self) -> None:
        """Gives it another TLS key, as every boot of an enclave has. Its registers stay."""
        with self._lock:
            self._identity = self._authority.identity(hosts=self._hosts)
            self._restart()

    def redeploy(self, pcrs: Registers | None = None) -> attest.Measurements:
        """Puts another image in its place: other registers and another TLS key.

        Args:
            pcrs: The registers; without them PCR0, PCR1 and PCR2 are drawn and the others stay, as
                those of a new version that the same people signed.

        Returns:
            :attr:`measurements` from here on.
        """
        with self._lock:
            self._pcrs = another_image(self._pcrs) if pcrs is None else registers(pcrs)
            self._identity = self._authority.identity(hosts=self._hosts)
            self._restart()
            return self.measurements

    def failing(self, fault: Fault) -> contextlib.AbstractContextManager[None]:
        """Plays a fault for the length of a block; of blocks that overlap, the one begun last.

        After the end of all of them the enclave is as it was.
        """
        return self._play(fault)

    def showing(self, document: bytes) -> contextlib.AbstractContextManager[None]:
        """Answers with these bytes whenever a document is asked for, for the length of a block.

        Args:
            document: At most about 12 KiB, as the NSM's answers; see
                :func:`cloister.testing.document`.
        """
        return self._play(document)

    def close(self) -> None:
        """Ends it, its application and its files; harmless when it does not run."""
        with self._lock:
            self.stop()
            if self._server is not None:
                self._server.stop()
                self._server = None
            if self._place is not None:
                self._place.close()
                self._place = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    # How.

    def _known(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"ca_file": self.ca_file, "api_key": self.api_key, **options}

    def _boot(self) -> None:
        """Starts a data plane with the registers, the identity and the fault of now."""
        fault = self._fault
        if fault is Fault.DOWN:
            return
        authority = Authority("somebody else") if fault is Fault.OTHER_CA else None
        identity = self._identity
        if authority is not None:
            identity = authority.identity(hosts=self._hosts)
        place = self._here()
        module = booted(
            fault,
            pcrs=self._pcrs,
            spki=identity.spki,
            root=self.root,
            now=dt.datetime.now(dt.UTC),
        )
        plane = _MeasuredDataPlane(
            self._upstream(),
            module=module,
            listen=f"127.0.0.1:{place.port}",
            certificate=place.write(identity),
            app_keys=[place.app_key_file],
            **self._settings,
        )
        self._plane = plane.start()

    def _upstream(self) -> str:
        """Where the application listens; it is started here when it is not somebody else's."""
        if isinstance(self._app, str):
            return self._app
        if self._server is None:
            self._server = Server(self._app, timeout_seconds=self._timeout)
        return self._server.address

    def _end_boot(self) -> None:
        if self._plane is not None:
            self._plane.stop()
            self._plane = None

    @contextlib.contextmanager
    def _play(self, fault: Fault | bytes) -> Iterator[None]:
        """Blocks may overlap, of several threads too, and end in any order."""
        played = _Played(fault)
        try:
            with self._lock:
                self._playing.append(played)
                self._restart()
            yield
        finally:
            with self._lock:
                self._playing.remove(played)
                self._restart()

    @property
    def _fault(self) -> Fault | bytes | None:
        return self._playing[-1].fault if self._playing else None

    def _restart(self) -> None:
        """Boots anew; one that is not running stays so."""
        if self._is_started:
            self._end_boot()
            self._boot()

    def _here(self) -> Place:
        if self._place is None:
            raise UsageError("the enclave was not started")
        return self._place


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Played:
    """One block with a fault, or a document; another block with the same is another."""

    fault: Fault | bytes


class _MeasuredDataPlane(DataPlane):
    """A data plane over a simulated NSM with registers of a test's choice."""

    def __init__(
        self,
        upstream: str,
        *,
        module: _native.SimulatedNsm,
        **settings: Any,  # noqa: ANN401 - as DataPlane has them
    ) -> None:
        super().__init__(upstream, **settings)
        self._settings["nsm"] = module
