"""The uuid of an enclave that is about to be registered, on disk before the platform hears of it.

A registration cannot be undone by whoever fails behind it: a full disk, a signal, an answer that
was lost. So an ``init`` notes the uuid in ``.cloister/init.toml`` first, and takes the note away
when ``enclave.toml`` is written; one that finds a note of the same enclave goes on with its uuid.
"""

import pathlib
from uuid import UUID

import tomlkit

from cloister.config import EnclaveToml, load
from cloister.errors import CloisterError, OutputError
from cloister.replacing import replace


def uuid_of(folder: pathlib.Path, toml: EnclaveToml) -> UUID | None:
    """The uuid of an ``init`` of this enclave that did not come to its end, or ``None``.

    Args:
        folder: That of ``enclave.toml``.
        toml: What is asked for; another name is another enclave, and so is a debug enclave.
    """
    try:
        found = load(_path(folder))
    except CloisterError:
        return None
    return found.uuid if (found.name, found.debug) == (toml.name, toml.debug) else None


def note(folder: pathlib.Path, toml: EnclaveToml, uuid: UUID) -> None:
    """Notes what is begun.

    Raises:
        OutputError: It cannot be written; then nothing may be registered.
    """
    text = tomlkit.document()
    text.add(tomlkit.comment("An init that has not come to its end; the next one goes on with it."))
    text.update({"version": toml.version, "name": toml.name})
    text.update({"uuid": str(uuid), "debug": toml.debug})
    replace(_path(folder), tomlkit.dumps(text).encode())


def forget(folder: pathlib.Path) -> None:
    """Takes the note away: ``enclave.toml`` has the uuid.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        _path(folder).unlink(missing_ok=True)
    except OSError as problem:
        raise OutputError(f"cannot remove `{_path(folder)}`: {problem.strerror}") from None


def _path(folder: pathlib.Path) -> pathlib.Path:
    return folder / ".cloister" / "init.toml"
