"""The object store of enclaves: sealed blobs, and plain ones that any host may answer with.

A directory for each enclave, a file for each object. The host can read, swap or roll back all of
it; what must not be read is sealed by the enclave, and what must not be rolled back is known to the
platform by its hash (wire.md §3). Conditions on entity tags make it usable as a lock.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Protocol

from cloister.errors import InputError, OutputError

MAX_OBJECT_BYTES = 1 << 20
MAX_OBJECTS = 256  # of one enclave
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_OF_AN_IMAGE = re.compile(r"\.[0-9a-f]{32}$")  # rust/sealing object.rs scope


class PreconditionFailed(InputError):
    """The object is not in the state that the caller asked for."""


class ObjectStore(Protocol):
    """Where objects are. Every method may be called from any thread, and blocks."""

    def read(self, enclave: uuid.UUID, name: str) -> tuple[bytes, str] | None:
        """Returns an object and its entity tag, or ``None``.

        Raises:
            InputError: ``name`` is not a name.
            OutputError: The store cannot be reached.
        """

    def write(
        self,
        enclave: uuid.UUID,
        name: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> str:
        """Replaces an object whole and returns its entity tag.

        Raises:
            InputError: ``name`` is not a name, or ``body`` is longer than ``MAX_OBJECT_BYTES``.
            PreconditionFailed: A condition does not hold; nothing was changed.
            OutputError: The store refused, or there is no room.
        """

    def remove(self, enclave: uuid.UUID, name: str, *, if_match: str | None = None) -> bool:
        """Removes an object; ``False`` when there is none.

        Raises:
            InputError: ``name`` is not a name.
            PreconditionFailed: It is not the object that the caller asked for.
            OutputError: The store refused.
        """


class DirectoryObjects:
    """Objects in a directory.

    Args:
        root: The directory; made when absent, mode 0700.
        limit: How many objects an enclave may have.
    """

    def __init__(self, root: pathlib.Path, *, limit: int = MAX_OBJECTS) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root = root
        self._limit = limit

    def read(self, enclave: uuid.UUID, name: str) -> tuple[bytes, str] | None:
        """Returns an object and its entity tag, or ``None``.

        Raises:
            InputError: ``name`` is not a name.
        """
        try:
            body = self._path(enclave, name).read_bytes()
        except FileNotFoundError:
            return None
        return body, entity_tag(body)

    def write(
        self,
        enclave: uuid.UUID,
        name: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> str:
        """Replaces an object whole and returns its entity tag.

        Raises:
            InputError: ``name`` is not a name, or ``body`` is longer than ``MAX_OBJECT_BYTES``.
            PreconditionFailed: A condition does not hold; nothing was changed.
            OutputError: The disk refused, or the enclave has ``MAX_OBJECTS`` objects, none of which
                belongs to another image.
        """
        path = self._path(enclave, name)
        if len(body) > MAX_OBJECT_BYTES:
            raise InputError(f"an object is at most {MAX_OBJECT_BYTES} bytes long")
        with self._alone(enclave):
            _check(self.read(enclave, name), if_match, if_none_match)
            if not path.exists():
                _make_room(path, self._limit)
            try:
                _replace(path, body)
            except OSError as problem:
                raise OutputError(f"the object cannot be written: {problem.strerror}") from problem
        return entity_tag(body)

    def remove(self, enclave: uuid.UUID, name: str, *, if_match: str | None = None) -> bool:
        """Removes an object; ``False`` when there is none.

        Raises:
            InputError: ``name`` is not a name.
            PreconditionFailed: It is not the object that the caller asked for.
        """
        path = self._path(enclave, name)
        if not path.parent.is_dir():
            _check(None, if_match, None)
            return False
        with self._alone(enclave):
            found = self.read(enclave, name)
            _check(found, if_match, None)
            if found is None:
                return False
            path.unlink()
            _sync_directory(path.parent)
        return True

    @contextlib.contextmanager
    def _alone(self, enclave: uuid.UUID) -> Iterator[None]:
        """Keeps other writers out, of this process and of others on the same directory.

        Raises:
            OutputError: The disk refused.
        """
        directory = self._root / str(enclave)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            # A name that `_NAME` does not allow, so that no object can be in its place.
            lock = os.open(directory / "~lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise OutputError(f"the object cannot be written: {problem.strerror}") from problem
        try:
            # The lock belongs to the open file: it also keeps out other threads.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _path(self, enclave: uuid.UUID, name: str) -> pathlib.Path:
        return self._root / str(enclave) / checked_name(name)


def entity_tag(body: bytes) -> str:
    """The strong entity tag of an object (RFC 9110 §8.8.3)."""
    return f'"{hashlib.sha256(body).hexdigest()}"'


def _check(
    found: tuple[bytes, str] | None, if_match: str | None, if_none_match: str | None
) -> None:
    """RFC 9110 §13.1: a list of tags, or ``*`` for any object."""
    tag = found[1] if found else None
    if if_match is not None and (tag is None or not _is_among(tag, if_match)):
        raise PreconditionFailed("the object is another one by now")
    if if_none_match is not None and tag is not None and _is_among(tag, if_none_match):
        raise PreconditionFailed("the object exists")


def _is_among(tag: str, condition: str) -> bool:
    return condition.strip() == "*" or tag in {part.strip() for part in condition.split(",")}


def to_let_go(
    kept: Iterable[tuple[str, float]], name: str, *, limit: int = MAX_OBJECTS
) -> str | None:
    """What has to go before an object ``name`` can be added.

    It is what another image of the enclave wrote longest ago. An image that is gone leaves its
    objects; one that still runs makes another at its next start.

    Args:
        kept: Names of the enclave's objects and when each was written.
        name: The name to be added.
        limit: How many an enclave may have.

    Returns:
        A name, or ``None``: there is room.

    Raises:
        OutputError: There is none, and nothing of another image.
    """
    kept = list(kept)
    if len(kept) < limit:
        return None
    scope = name.rpartition(".")[2]
    others = [
        (at, other)
        for other, at in kept
        if _OF_AN_IMAGE.search(other) and other.rpartition(".")[2] != scope
    ]
    if not others:
        raise OutputError(f"an enclave has at most {limit} objects")
    return min(others)[1]


def checked_name(name: str) -> str:
    """The name of an object.

    Raises:
        InputError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise InputError("an object's name is 1 to 128 of a-z, 0-9, dot, dash and underscore")
    return name


def _make_room(path: pathlib.Path, limit: int) -> None:
    kept = [entry for entry in path.parent.iterdir() if _NAME.fullmatch(entry.name)]
    times = ((entry.name, entry.stat().st_mtime_ns) for entry in kept)
    old = to_let_go(times, path.name, limit=limit)
    if old is not None:
        (path.parent / old).unlink()


def _replace(path: pathlib.Path, body: bytes) -> None:
    # A name that `_NAME` does not allow, so that no object can be in its place.
    temporary = path.with_name(f"{path.name}~")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
