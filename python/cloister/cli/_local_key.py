"""The API key of local runs: made once, kept in ``.cloister/dev/api-key``, mode 0600.

It is the one API key that is kept in clear, so that `cloister run` can be called again and again
with one curl line; it belongs to a development store and is worth nothing elsewhere.
"""

import contextlib
import os
import pathlib

from cloister.errors import OutputError
from cloister.platform.api_keys import ApiKeys

FILE = "api-key"


def local_key(keys: ApiKeys, store: pathlib.Path) -> str:
    """The key in the file when it still works, else a new one, which replaces it.

    Args:
        keys: The keys of the app.
        store: Folder of the store.

    Raises:
        OutputError: The file cannot be written.
    """
    path = store / FILE
    with contextlib.suppress(OSError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii").strip()
        if keys.works(kept):
            path.chmod(0o600)
            return kept
    made = keys.create("cloister run", scopes=["app"]).secret
    _replace(path, made)
    return made


def _replace(path: pathlib.Path, key: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
        temporary.replace(path)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from None
