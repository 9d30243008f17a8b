"""The Rust servers as Python objects, for development and tests: the data plane and the relay.

:class:`DataPlane` is the data plane of an enclave in this process, without an enclave. Keys,
plaintext and "enclave" share one ordinary process, so **it protects nothing**: it shows an
application developer, and a test, what the data plane does. Its attestation documents come from a
simulated NSM with zero PCRs under a development root; a client attests it only when it names that
root and accepts debug enclaves.

Rust threads move the bytes; Python starts, stops and observes them.
"""

import base64
import dataclasses
import datetime as dt
import json
import os
import pathlib
import tempfile
import types
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cloister import config as enclave_toml
from cloister._native import devplane
from cloister.errors import KeyFileError, MissingInput, UsageError
from cloister.host.relay import Relay
from cloister.moments import to_ms

__all__ = ["ApiKey", "DataPlane", "Relay", "default_config"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key to accept.

    Args:
        value: The key as clients present it.
        scopes: ``app``, or ``enclave:<uuid>``; a key without one opens nothing.
        not_after: When it ends, with a time zone, if it does.
    """

    value: str = dataclasses.field(repr=False)
    scopes: tuple[str, ...] = ("app",)
    not_after: dt.datetime | None = None


class DataPlane:
    """The data plane, between a listening socket and an application.

    It is not running until :meth:`start`; as a context manager it runs inside the block.

    Args:
        upstream: Where the application listens: ``HOST:PORT`` or ``unix:PATH``.
        config: Path of an ``enclave.toml``, or settings of ``/cloister/config.json`` that are laid
            over :func:`default_config`, nested ones too.
        listen: Where clients connect, ``HOST:PORT``; port 0 is any free one.
        api_keys: Keys to accept; one is made when there is none.
        app_keys: Files with development app keys, oldest first; one is made when there is none.
        env: Variables of the bundle, as the internal API shows them.
        workers: Threads that serve.
        proxy_protocol: Expect a PROXY v2 header first, as behind a relay.
        certificate: PEM files of a certificate chain and its key; without them a development CA
            signs a key made in the data plane.
        nsm_root_dir: Folder of the simulated NSM's root; without it one is made for this object.
        logs: File for the transaction logs, ``-`` for standard error; without it they are dropped.
        metrics_listen: Where ``/health`` and ``/metrics`` are served, ``HOST:PORT``.
        internal_api: Where the internal API is served, ``HOST:PORT``; it is not without.
        bundle_life: Life of a bundle; never used for longer than 15 minutes.
        start_timeout: How long :meth:`start` may take.

    Raises:
        MissingInput: A file is not there.
        UsageError: An address cannot be read, or a number is not positive.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings
        self,
        upstream: str,
        *,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        listen: str = "127.0.0.1:0",
        api_keys: Sequence[str | ApiKey] = (),
        app_keys: Sequence[str | os.PathLike[str]] = (),
        env: Mapping[str, str | bytes] | None = None,
        workers: int = 1,
        proxy_protocol: bool = False,
        certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        nsm_root_dir: str | os.PathLike[str] | None = None,
        logs: str | os.PathLike[str] | None = None,
        metrics_listen: str | None = None,
        internal_api: str | None = None,
        bundle_life: dt.timedelta = dt.timedelta(minutes=15),
        start_timeout: dt.timedelta = dt.timedelta(seconds=15),
    ) -> None:
        if workers < 1:
            raise UsageError("workers must be at least 1")
        if min(bundle_life, start_timeout) <= dt.timedelta(0):
            raise UsageError("bundle_life and start_timeout must be positive")
        self._config = _config(config)
        if certificate is not None and not self._config["tls"]["termination"]:
            raise UsageError("with `tls_termination = false` a certificate is the application's")
        self._settings: dict[str, Any] = {
            "listen": _address(listen),
            "upstream": _address(upstream),
            "app_key_files": [_read(path) for path in app_keys],
            "api_keys": [_native_key(key) for key in api_keys],
            "env": [(name, _bytes(value)) for name, value in (env or {}).items()],
            "workers": workers,
            "proxy_protocol": proxy_protocol,
            "certificate": None if certificate is None else _read(certificate[0]),
            "key": None if certificate is None else _read(certificate[1]),
            "nsm_root_dir": None if nsm_root_dir is None else os.fspath(nsm_root_dir),
            # A development data plane has zero PCRs; `cloister.testing` has others, under a root
            # that is kept nowhere.
            "nsm": None,
            "logs": None if logs is None else os.fspath(logs),
            "health": None if metrics_listen is None else _address(metrics_listen),
            "internal_api": None if internal_api is None else _address(internal_api),
            "bundle_life": bundle_life,
            "start_timeout": start_timeout,
        }
        self._native: devplane.DevPlane | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> Self:
        """Starts it and returns when it accepts traffic.

        Raises:
            ConfigError: The configuration, or an API key, cannot be used.
            KeyFileError: An app key, or the certificate, cannot be used.
            OutputError: The log file cannot be opened.
            RunnerError: It cannot listen there, or does not accept in time.
        """
        if self._native is not None:
            raise UsageError("the data plane was started before")
        config = json.dumps(self._config).encode()
        self._native = devplane.DevPlane(config, **self._settings)
        return self

    @property
    def uuid(self) -> str:
        """Uuid of the enclave it plays."""
        return str(self._config["uuid"])

    @property
    def address(self) -> str:
        """Where clients connect, ``HOST:PORT``, with the real port where 0 was asked for."""
        return self._running().address.removeprefix("tcp:")

    @property
    def url(self) -> str:
        """Where clients connect: ``https://localhost:PORT``.

        The scheme is ``tls`` where no HTTP is inside, ``tcp`` where TLS is the application's.
        """
        port = self.address.rpartition(":")[2]
        return f"{enclave_toml.scheme(self._config)}://localhost:{port}"

    @property
    def needs_api_key(self) -> bool:
        """Whether clients are asked for an API key."""
        return bool(self._config["api_key_auth"])

    @property
    def internal_api(self) -> str | None:
        """Where the internal API is, ``HOST:PORT``, when it was asked for."""
        address = self._running().internal_api
        return None if address is None else address.removeprefix("tcp:")

    @property
    def metrics_address(self) -> str | None:
        """Where ``/health`` and ``/metrics`` are, ``HOST:PORT``, when they were asked for."""
        address = self._running().health_address
        return None if address is None else address.removeprefix("tcp:")

    @property
    def ca_pem(self) -> str | None:
        """The development CA, PEM; ``None`` with a given certificate or without TLS here."""
        return self._running().ca_pem

    @property
    def ca_file(self) -> pathlib.Path:
        """The development CA in a file, for ``curl --cacert``; it goes when this is stopped.

        Raises:
            UsageError: There is none: a certificate was given, or TLS does not end here.
        """
        pem = self.ca_pem
        if pem is None:
            raise UsageError(
                "there is no development CA: a certificate was given, or TLS does not end here"
            )
        return self._file("dev-ca.pem", pem)

    @property
    def nsm_root_file(self) -> pathlib.Path:
        """Root of the simulated NSM in a file, PEM; it goes when this is stopped."""
        return self._file("nsm-root.pem", self._running().nsm_root_pem)

    @property
    def nsm_root_der(self) -> bytes:
        """Root of the simulated NSM, for :class:`cloister.attest.TrustAnchor`."""
        return self._running().nsm_root_der

    @property
    def api_key(self) -> str:
        """The first API key: the one that was made when none was given."""
        return self._running().api_keys[0]

    @property
    def app_public_key(self) -> bytes:
        """The newest app key, compressed (SEC 1, 33 bytes): what clients encrypt to."""
        return self._running().app_public_key

    def stats(self) -> dict[str, int]:
        """Counters of the traffic since the start; also after it was stopped."""
        return self._running().stats()

    def health(self) -> dict[str, Any]:
        """The state, as ``GET /health`` of an enclave gives it."""
        found: dict[str, Any] = json.loads(self._running().health())
        return found

    def replace_api_keys(self, api_keys: Sequence[str | ApiKey]) -> None:
        """Accepts these keys and no other; the data plane follows within a moment.

        Raises:
            ConfigError: A key could not be presented.
        """
        self._running().replace_api_keys([_native_key(key) for key in api_keys])

    def hold_back_bundles(self, *, held_back: bool) -> None:
        """Plays a host that carries no bundles any more, or carries them again."""
        self._running().hold_back_bundles(held_back)

    def drain(self, grace: dt.timedelta) -> None:
        """Stops accepting, waits up to ``grace`` for what is in flight, ships logs, then stops."""
        self._running().drain(grace)
        self._remove_files()

    def stop(self) -> None:
        """Ends at once; harmless when it is not running."""
        if self._native is not None:
            self._native.stop()
        self._remove_files()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> devplane.DevPlane:
        if self._native is None:
            raise UsageError("the data plane was not started")
        return self._native

    def _file(self, name: str, content: str) -> pathlib.Path:
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="cloister-dev-")
        path = pathlib.Path(self._files.name) / name
        if not path.exists():
            path.write_text(content, encoding="ascii")
        return path

    def _remove_files(self) -> None:
        if self._files is not None:
            self._files.cleanup()
            self._files = None


def default_config() -> dict[str, Any]:
    """The attested configuration of an ``enclave.toml`` that sets nothing, with new uuids."""
    uuids = "\n".join(f'{key} = "{uuid.uuid4()}"' for key in ("uuid", "app_uuid", "team_uuid"))
    toml = f'version = 1\nname = "dev"\n{uuids}\n[trust]\nservice_keys = ["{_REPLACED_KEY}"]\n'
    return enclave_toml.loads(toml).attested()


def _config(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return default_config()
    if isinstance(config, Mapping):
        return _laid_over(default_config(), config)
    return enclave_toml.load(pathlib.Path(config)).attested()


def _laid_over(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _laid_over(base[key], value)
        else:
            base[key] = value
    return base


def _address(text: str) -> str:
    """``HOST:PORT`` and ``unix:PATH`` as the Rust side writes them."""
    if text.startswith(("tcp:", "unix:")):
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise UsageError(f"expected HOST:PORT or unix:PATH, got `{text[:80]!r}`")
    return f"tcp:{host}:{port}"


def _native_key(key: str | ApiKey) -> tuple[str, list[str], int | None]:
    if isinstance(key, str):
        key = ApiKey(value=key)
    end = None if key.not_after is None else to_ms(key.not_after, name="`not_after`")
    return key.value, list(key.scopes), end


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingInput(f"there is no file `{os.fspath(path)}`") from None
    except OSError as problem:
        raise KeyFileError(f"cannot read `{os.fspath(path)}`: {problem.strerror}") from None


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


_MAX_PORT = 65_535
# The data plane puts the key of its own platform in place of any other.
_REPLACED_KEY = base64.b64encode(bytes(32)).decode()
