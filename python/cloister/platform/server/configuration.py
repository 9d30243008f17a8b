"""``platform.toml``: where a platform listens, what it is called, and where its store is.

It lies in the platform's folder, beside the master key. The address of a database may hold a
password: then others must not be able to read the file.
"""

import dataclasses
import pathlib
import re
import stat
import tomllib
from typing import Any

from sqlalchemy import URL

from cloister.errors import ConfigError, MissingInput
from cloister.platform.engines import database_url, has_password
from cloister.platform.server.names import general_name
from cloister.platform.trust_class import TrustClass


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlatformConfig:
    """Checked settings of a platform.

    Args:
        folder: The platform's folder.
        trust_class: ``production``, or ``development`` for trying things out.
        listen: Address and port.
        names: DNS names and addresses that its certificate is for.
        database: PostgreSQL; an SQLite file in the folder when absent.
        master_key: ``file``, or ``kms://`` and the ARN of a key.
        certificate: Chain in PEM; the platform's own when absent.
        key: Its private key, PEM.
        development_root: Certificate of the development root; for class development alone.
    """

    folder: pathlib.Path
    trust_class: TrustClass
    listen: tuple[str, int]
    names: tuple[str, ...]
    database: URL | None
    master_key: str
    certificate: pathlib.Path | None
    key: pathlib.Path | None
    development_root: pathlib.Path | None

    @property
    def tls_folder(self) -> pathlib.Path:
        """Where the platform's own certificate is."""
        return self.folder / "tls"


def load(folder: pathlib.Path) -> PlatformConfig:
    """Reads ``platform.toml`` of a platform's folder.

    Raises:
        MissingInput: There is none.
        ConfigError: It cannot be read, or a setting is unknown, missing or wrong.
    """
    path = folder / FILE
    try:
        text = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as problem:
        raise MissingInput(
            f"`{path}` cannot be read: {problem.strerror}",
            hint="`cloister platform init` makes it",
        ) from None
    try:
        found = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"`{path}` is not TOML: {problem}") from None
    config = read(found, folder)
    if config.database is not None and has_password(config.database) and mode & 0o077:
        raise ConfigError(
            f"`{path}` holds a password and has mode {mode:04o}", hint=f"chmod 600 '{path}'"
        )
    return config


def read(found: dict[str, Any], folder: pathlib.Path) -> PlatformConfig:
    """Checks settings.

    Raises:
        ConfigError: A setting is unknown, missing or wrong.
    """
    if found.get("version") != VERSION:
        raise ConfigError(f"`version` of platform.toml must be {VERSION}")
    unknown = sorted(found.keys() - KNOWN)
    if unknown:
        raise ConfigError(
            f"platform.toml has an unknown setting {unknown[0][:80]!a}: expected"
            f" {', '.join(sorted(KNOWN))}"
        )
    texts = {name: _text(found, name) for name in KNOWN - {"version", "names"}}
    names = found.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise ConfigError("`names` of platform.toml is not a list of names and addresses")
    for name in names:
        general_name(name)
    trust_class = texts["class"] or TrustClass.PRODUCTION.value
    if trust_class not in {TrustClass.PRODUCTION.value, TrustClass.DEVELOPMENT.value}:
        raise ConfigError("`class` of platform.toml is neither `production` nor `development`")
    if (texts["certificate"] is None) != (texts["key"] is None):
        raise ConfigError("`certificate` and `key` of platform.toml come together")
    is_development = trust_class == TrustClass.DEVELOPMENT.value
    if is_development != (texts["development_root"] is not None):
        raise ConfigError("`development_root` belongs to class development, and only to it")
    url = texts["database_url"]
    return PlatformConfig(
        folder=folder,
        trust_class=TrustClass(trust_class),
        listen=listen_address(texts["listen"] or DEFAULT_LISTEN),
        names=tuple(names),
        database=None if url is None else database_url(url),
        master_key=texts["master_key"] or "file",
        certificate=_path(texts["certificate"], folder),
        key=_path(texts["key"], folder),
        development_root=_path(texts["development_root"], folder),
    )


def listen_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, with brackets around an IPv6 address.

    Raises:
        ConfigError: It is none.
    """
    shape = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:([0-9]{1,5})|([^:\[\]]+):([0-9]{1,5})", text)
    if shape is None or int(shape[2] or shape[4]) > MAX_PORT:
        raise ConfigError("the address to listen on is not HOST:PORT, as in 127.0.0.1:8800")
    return (shape[1] or shape[3], int(shape[2] or shape[4]))


def _text(found: dict[str, Any], name: str) -> str | None:
    value = found.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigError(f"`{name}` of platform.toml is not a text")
    return value


def _path(text: str | None, folder: pathlib.Path) -> pathlib.Path | None:
    return None if text is None else folder / text


FILE = "platform.toml"
VERSION = 1
DEFAULT_LISTEN = "127.0.0.1:8800"
MAX_PORT = 65_535
KNOWN = frozenset(
    {
        "version",
        "class",
        "listen",
        "names",
        "database_url",
        "master_key",
        "certificate",
        "key",
        "development_root",
    }
)
