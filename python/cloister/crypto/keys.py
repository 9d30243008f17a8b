"""Keys of an app as they are handed around: the public one as text, a private one as a file.

Nothing is decided here about a key but its form; whether it is one of its curve is found where it
is used, in Rust.
"""

import base64
import binascii
import json
from typing import Any

from cloister.errors import KeyFileError

PUBLIC_KEY_BYTES = 33  # compressed point of P-256 (SEC 1, 2.3.3)
PRIVATE_KEY_BYTES = 32  # a scalar of either curve, big-endian
CURVES = ("P-256", "secp256k1")


def read_public_key(key: bytes | str) -> bytes:
    """A public key as bytes: 33 of them, or their base64 as text.

    Raises:
        KeyFileError: It is neither.
    """
    if isinstance(key, str):
        try:
            key = base64.b64decode(key.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise KeyFileError("the app's public key is not base64") from None
    if len(key) != PUBLIC_KEY_BYTES:
        raise KeyFileError(
            f"the app's public key is {len(key)} bytes long, expected {PUBLIC_KEY_BYTES}",
            hint="it is the compressed P-256 point that `cloister init` prints",
        )
    return key


def read_private_key(content: bytes | str) -> tuple[str, bytes]:
    """A private key file, as :class:`cloister.crypto.Keyring` takes its keys: curve and scalar.

    The file is JSON: ``{"curve": "P-256", "private": "<base64 of 32 bytes>"}``, with a ``class``
    that is not looked at here: where a key may be used is decided by what it is used for.

    Raises:
        KeyFileError: It is not such a file.
    """
    try:
        found: Any = json.loads(content)
        curve, private = found["curve"], base64.b64decode(found["private"], validate=True)
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        raise KeyFileError(
            "the private key is not JSON with `curve` and `private`, base64 of 32 bytes"
        ) from None
    if curve not in CURVES:
        raise KeyFileError("the curve of the private key is neither `P-256` nor `secp256k1`")
    if len(private) != PRIVATE_KEY_BYTES:
        raise KeyFileError(
            f"the private key is {len(private)} bytes long, expected {PRIVATE_KEY_BYTES}"
        )
    return curve, private
