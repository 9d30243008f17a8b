"""Which keys ``encrypt`` and ``decrypt`` use: given ones, or those of the local store."""

import contextlib
import pathlib
import stat

from cloister import crypto
from cloister.cli import output, settings
from cloister.errors import KeyFileError, MissingInput

_MAX_KEY_FILE_BYTES = 4096


def public_key(given: str | None, config: pathlib.Path) -> bytes:
    """From a file, from the command line, from the platform, or from the local store.

    Raises:
        KeyFileError: It is no public key.
        MissingInput: None was given, and there is no store.
    """
    if given is None and settings.load().platform_url is not None:
        from cloister.cli import _owner  # noqa: PLC0415 - and so does this

        with _owner.opened(config.parent) as owner:
            return bytes.fromhex(owner.app(_owner.app_of(owner, config))["public_key"])
    if given is None:
        from cloister.platform import local  # noqa: PLC0415 - the store costs 200 ms to import

        return local.app_public_key(_store_folder(config, "--public-key"))
    path = pathlib.Path(given)
    if not path.is_file():
        return crypto.read_public_key(given)
    content = _read(path)
    if len(content) == crypto.PUBLIC_KEY_BYTES:
        return content
    return crypto.read_public_key(content.decode("ascii", "replace"))


def keyring(
    given: list[pathlib.Path], config: pathlib.Path, *, dangerous_accept_debug: bool
) -> crypto.Keyring:
    """The private keys of files, oldest first, or of the local store.

    Raises:
        KeyFileError: A file is no private key.
        MissingInput: None was given, and there is no store; or a file is not there.
    """
    if given:
        keys = [crypto.read_private_key(_read_private(path)) for path in given]
    else:
        from cloister.platform import local  # noqa: PLC0415 - the store costs 200 ms to import

        keys = local.app_private_keys(_store_folder(config, "--private-key"))
    return crypto.Keyring(keys, dangerous_accept_debug=dangerous_accept_debug)


def _store_folder(config: pathlib.Path, option: str) -> pathlib.Path:
    from cloister.platform import local  # noqa: PLC0415 - the store costs 200 ms to import

    folder = config.resolve().parent
    if not local.store_directory(folder).is_dir():
        raise MissingInput(
            f"there is no local store beside `{config}`",
            hint=f"run `cloister init`, or give {option}",
        )
    return folder


def _read_private(path: pathlib.Path) -> bytes:
    content = _read(path)
    with contextlib.suppress(OSError):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            output.warn(f"`{path}` can be read by others; `chmod 600` it")
    return content


def _read(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        raise MissingInput(f"there is no file `{path}`") from None
    except OSError as problem:
        raise KeyFileError(f"cannot read `{path}`: {problem.strerror}") from None
    if len(content) > _MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"`{path}` is too long to be a key")
    return content
