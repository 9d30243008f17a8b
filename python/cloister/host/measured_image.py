"""Measures one image and says so in JSON: a program of its own, ``python -m``.

An EIF is read through a memory map, and a file that is cut short meanwhile ends the process that
reads it (SIGBUS). So a host, whose enclaves would end with it, lets another process read.
"""

import json
import pathlib
import sys
from typing import Any

from cloister.build import eif
from cloister.build.built_config import attested_of
from cloister.errors import CloisterError


def describe(path: pathlib.Path) -> dict[str, Any]:
    """What a host has to know of an image.

    Returns:
        ``uuid``, ``debug``, ``drain_ms`` and ``pcrs`` in hexadecimal by index; or ``refused`` with
        the reason, and ``is_final``: another look says the same until the file is changed.
    """
    try:
        with eif.open_eif(path) as opened:
            pcrs = eif.measure(opened).registers()
            built = attested_of(opened, image_path=path)
        if not isinstance(built.get("uuid"), str):
            return {"refused": "its configuration names no enclave", "is_final": True}
    except OSError as problem:
        return {"refused": problem.strerror or str(problem), "is_final": False}
    except CloisterError as problem:
        is_unread = isinstance(problem.__cause__ or problem.__context__, OSError)
        return {"refused": problem.message, "is_final": not is_unread}
    return {
        "uuid": built["uuid"],
        "debug": built["debug"],
        "drain_ms": built["limits"]["drain_timeout"],
        "pcrs": {str(index): value.hex() for index, value in pcrs.items()},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(pathlib.Path(sys.argv[1]))))
