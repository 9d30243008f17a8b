"""The configuration that was built into an image, as an enclave reads it when it starts."""

import base64
import contextlib
import json
import pathlib
from typing import Any

from cloister.build import cpio
from cloister.build.eif import Eif
from cloister.errors import MalformedImage


def attested_of(image: Eif, *, image_path: pathlib.Path) -> dict[str, Any]:
    """The configuration that was built into an image.

    Raises:
        MalformedImage: It has none, or one that the enclave would refuse.
    """
    for ramdisk in image.ramdisks[1:]:
        for entry in cpio.read(ramdisk.payload, at=ramdisk.offset):
            if entry.path == CONFIG:
                with contextlib.suppress(KeyError, RecursionError, TypeError, ValueError):
                    return _needed(json.loads(bytes(entry.data)))
    raise MalformedImage(
        f"`{image_path}` has no configuration in it that an enclave would start with",
        hint="`cloister build` makes it again",
    )


def _needed(found: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """The configuration, when it has what is used of it here, in its type.

    Raises:
        KeyError, TypeError, ValueError: It has not.
    """
    used = {
        bool: (found["debug"], found["api_key_auth"], found["tls"]["termination"]),
        int: (found["service"]["port"], found["limits"]["drain_timeout"]),
        str: (found["service"]["protocol"],),
    }
    if not all(isinstance(value, kind) for kind, values in used.items() for value in values):
        raise TypeError("a setting has another type")
    for key in found["trust"]["service_keys"]:
        base64.b64decode(key, validate=True)
    return dict(found)


CONFIG = b"cloister/config.json"
