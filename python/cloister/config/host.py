# ruff: noqa: RUF009 - `setting` makes a dataclass field; the tables it holds are frozen
"""``host.toml``: what a host runs, and for whom. Nothing in it is a secret; the token is a file.

Paths are relative to the file. ``host.toml.example`` says what each setting means to a user.
"""

import dataclasses
import pathlib
import re
from typing import Any, ClassVar
from uuid import UUID

from cloister.config.reading import Reader, text_of
from cloister.config.setting import (
    Table,
    checked_text,
    choice,
    identity,
    integer,
    setting,
    size,
    table,
    tables,
    text,
)

VERSION = 1
"""The version of the file format that this program reads."""

_PATH = text(r"[^\0]{1,4096}", "a path")


def _listen_problem(address: str) -> str | None:
    """What is wrong with ``HOST:PORT``, as a hint."""
    shape = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]{1,253}):([0-9]{1,5})", address)
    if shape is None or int(shape[2]) > MAX_PORT:
        return "as in 0.0.0.0:443 or [::]:443"
    return None


_LISTEN = checked_text("an address, HOST:PORT", _listen_problem)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlatformToml(Table):
    """The owner's platform.

    Args:
        url: Where it is.
        ca: The authority of its certificate, PEM; ``None``: those of the system.
        token: File with a token of scope ``relay`` for the enclaves of this host, mode 0600.
    """

    title: ClassVar[str] = "platform"
    url: str | None = setting(text(r"https://[!-~]{1,2000}", "https://HOST[:PORT]"), default=None)
    ca: str | None = setting(_PATH, default=None)
    token: str = setting(_PATH, default="token")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveOfHost(Table):
    """One enclave that the host keeps running.

    Args:
        uuid: Its identity at the platform.
        listen: Where its clients connect.
        cpus: Processors; ``None``: no bound but the machine's.
        memory: Memory in bytes; ``None``: no bound but the machine's.
        max_connections: Clients at one time.
        workers: Threads of its relay.
    """

    title: ClassVar[str] = "enclave"
    uuid: UUID = setting(identity())
    listen: str = setting(_LISTEN)
    cpus: int | None = setting(integer(1, 1024), default=None)
    memory: int | None = setting(size(64 << 20, 1 << 50), default=None)
    max_connections: int = setting(integer(1, 10_000_000), default=10_000)
    workers: int = setting(integer(1, 1024), default=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostToml(Table):
    """A whole ``host.toml``, checked.

    Args:
        version: :data:`VERSION`.
        trust_class: ``production``, or ``development`` under the development root of this machine.
        runner: How enclaves are run: ``sandbox``, ``qemu`` or ``nitro``.
        images: Folder of the images, ``*.eif``.
        state: Folder of logs and objects.
        objects: ``s3://BUCKET[/PREFIX]`` for hosts that share objects; ``None``: in ``state``.
        metrics_listen: Where ``/metrics`` and ``/health`` are served; ``None``: nowhere.
        start_timeout: How long an enclave may take to be ready, milliseconds.
        platform: The owner's platform.
        enclaves: What runs here.
        path: The file it was read from.
    """

    title: ClassVar[str] = ""
    version: int = setting(integer(VERSION, VERSION), default=VERSION)
    trust_class: str = setting(
        choice("production", "development"), default="production", key="class"
    )
    runner: str = setting(choice("sandbox", "qemu", "nitro"), default="nitro")
    images: str = setting(_PATH, default="images")
    state: str = setting(_PATH, default="state")
    objects: str | None = setting(
        text(
            r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[!-~]{0,900})?",
            "s3://BUCKET or s3://BUCKET/PREFIX",
        ),
        default=None,
    )
    metrics_listen: str | None = setting(_LISTEN, default=None)
    start_timeout: int = setting(integer(1000, 3_600_000, "milliseconds"), default=60_000)
    platform: PlatformToml = setting(table(PlatformToml), default=PlatformToml())
    enclaves: tuple[EnclaveOfHost, ...] = setting(tables(EnclaveOfHost), default=(), key="enclave")
    path: pathlib.Path = dataclasses.field(default=pathlib.Path("host.toml"), compare=False)

    def beside(self, relative: str) -> pathlib.Path:
        """A path of the file, which is relative to the file's folder."""
        return self.path.parent / relative


def load_host(path: pathlib.Path) -> HostToml:
    """Reads a file.

    Args:
        path: The ``host.toml``.

    Raises:
        MissingInput: There is no such file.
        ConfigError: It cannot be read, is not TOML, has an unknown or wrong setting, names no
            enclave, or the same enclave or address twice. The message starts with file, line and
            column.
    """
    return loads_host(text_of(path, missing_hint="`cloister host init` makes one"), path=path)


def loads_host(text: str, *, path: pathlib.Path) -> HostToml:
    """Reads the text of a file.

    Raises:
        ConfigError: As :func:`load_host`.
    """
    reader = Reader(str(path), text, HostToml, example="host.toml.example")
    values = reader.values()
    enclaves: tuple[EnclaveOfHost, ...] = values.get("enclaves", ())
    if not enclaves:
        reader.fail((), "the file names no enclave: expected `[[enclave]]`", _HINT)
    if len(enclaves) > MAX_ENCLAVES:
        reader.fail(("enclave",), f"expected at most {MAX_ENCLAVES} enclaves", None)
    for key in ("uuid", "listen"):
        _check_once(reader, key, [getattr(one, key) for one in enclaves])
    return HostToml(**values, path=path)


def _check_once(reader: Reader, key: str, values: list[Any]) -> None:
    for number, value in enumerate(values):
        is_any_port = isinstance(value, str) and value.endswith(":0")
        if value in values[:number] and not is_any_port:
            reader.fail(("enclave", str(number), key), f"`{key}` {value} stands there twice", None)


MAX_ENCLAVES = 64
MAX_PORT = 65_535
_HINT = "`uuid` and `listen` of each; host.toml.example shows them"
