"""The API key of local runs: made once, kept in ``.cloister/dev/api-key``, mode 0600.

It is the one API key that is kept in clear, so that `cloister run` can be called again and again
with one curl line; it belongs to a development store and is worth nothing elsewhere.
"""

import contextlib
import pathlib

from cloister.platform.api_keys import ApiKeys
from cloister.replacing import replace

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
    replace(path, f"{made}\n".encode(), mode=0o600)
    return made
