"""Encrypting values for an app, with its public key alone.

What comes out is the ``ev:`` format of the hosted product: the enclave opens it on the way to the
application, and its published SDKs read and write it with the same key. Nothing here can decrypt.

Encrypted are ``str``, ``bytes``, ``int``, ``float`` and ``bool``, wherever they stand in ``dict``,
``list`` and ``tuple``; ``None`` and the keys of a ``dict`` stay in clear.
"""

import base64
import binascii
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from cloister._native import crypto as _native
from cloister.errors import InputError, KeyFileError, UsageError

MAX_DEPTH = 128
"""Deepest nesting of a document, the same in the enclave."""

PUBLIC_KEY_BYTES = 33  # compressed point of P-256 (SEC 1, 2.3.3)


def encrypt(
    value: Any,  # noqa: ANN401 - any value of the kinds in the module's docstring
    public_key: bytes | str,
    *,
    role: str | None = None,
    version: str = "QkTC",
    now: dt.datetime | None = None,
) -> Any:  # noqa: ANN401 - the same shape
    """Encrypts a value, or every value inside a container, and returns the same shape.

    Args:
        value: What to encrypt; see the module for the kinds.
        public_key: The app's public key: a compressed P-256 point of 33 bytes, or its base64.
        role: Data role, 1 to 20 of ``a-z``, ``0-9`` and hyphen.
        version: ``QkTC``, or ``Tk9D`` for readers that know no metadata.
        now: The time written into the metadata; the system's by default.

    Raises:
        KeyFileError: ``public_key`` is not one.
        UsageError: ``role`` or ``version`` is not one, or ``now`` is before 1970 or after 2106.
        InputError: ``value`` holds something of another kind, a number that is not finite, a key
            that is not text, or is nested deeper than :data:`MAX_DEPTH`.
    """
    leaves: list[tuple[str, bytes]] = []
    _collect(value, leaves, 0)
    tokens = _native.encrypt_values(
        leaves, read_public_key(public_key), version=version, role=role, unix_seconds=_seconds(now)
    )
    return _rebuild(value, iter(tokens))


def encrypt_literal(  # noqa: PLR0913 - what one value takes, by keyword
    text: bytes,
    public_key: bytes | str,
    *,
    kind: str = "string",
    role: str | None = None,
    version: str = "QkTC",
    now: dt.datetime | None = None,
) -> str:
    """Encrypts one value as it is written: ``1.10`` stays ``1.10``.

    Args:
        text: The value: any bytes for a string, a JSON number, ``true`` or ``false``.
        public_key: As for :func:`encrypt`.
        kind: ``string``, ``number`` or ``boolean``.
        role: As for :func:`encrypt`.
        version: As for :func:`encrypt`.
        now: As for :func:`encrypt`.

    Raises:
        KeyFileError: ``public_key`` is not one.
        UsageError: ``kind``, ``role`` or ``version`` is not one.
        InputError: ``text`` is not of its kind.
    """
    (token,) = _native.encrypt_values(
        [(kind, text)],
        read_public_key(public_key),
        version=version,
        role=role,
        unix_seconds=_seconds(now),
    )
    return token


def encrypt_json(
    document: bytes,
    public_key: bytes | str,
    *,
    role: str | None = None,
    version: str = "QkTC",
    now: dt.datetime | None = None,
) -> bytes:
    """Encrypts a JSON document as it is written: ``1.10`` and 20-digit numbers come back exactly.

    Raises:
        KeyFileError: ``public_key`` is not one.
        UsageError: ``role`` or ``version`` is not one.
        InputError: ``document`` is not JSON, or nested deeper than :data:`MAX_DEPTH`.
    """
    return _native.encrypt_json(
        document,
        read_public_key(public_key),
        version=version,
        role=role,
        unix_seconds=_seconds(now),
    )


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


def _collect(value: Any, leaves: list[tuple[str, bytes]], depth: int) -> None:  # noqa: ANN401
    """Gathers every value in the order in which :func:`_rebuild` puts them back."""
    if depth > MAX_DEPTH:
        raise InputError(f"the value is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"a key is of type {type(key).__name__}, expected text")
            _collect(inner, leaves, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _collect(inner, leaves, depth + 1)
    elif value is not None:
        leaves.append(_leaf(value))


def _leaf(value: Any) -> tuple[str, bytes]:  # noqa: ANN401
    if isinstance(value, str):
        try:
            return "string", value.encode()
        except UnicodeEncodeError:
            raise InputError("a text holds a lone surrogate, which UTF-8 cannot write") from None
    if isinstance(value, (bytes, bytearray)):
        return "string", bytes(value)
    if isinstance(value, bool):
        return "boolean", b"true" if value else b"false"
    # Subclasses (enums, NumPy's) may write themselves in another way than JSON does.
    if isinstance(value, int):
        try:
            return "number", int.__repr__(value).encode()
        except ValueError:  # the interpreter's own limit, sys.get_int_max_str_digits()
            raise InputError("an integer has more digits than this interpreter writes") from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError("a number is not finite, and JSON has none like it")
        return "number", float.__repr__(value).encode()
    raise InputError(
        f"a value is of type {type(value).__name__}, expected text, bytes, number, boolean or None"
    )


def _rebuild(value: Any, tokens: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _rebuild(inner, tokens) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rebuild(inner, tokens) for inner in value]
    if isinstance(value, tuple):
        rebuilt = tuple(_rebuild(inner, tokens) for inner in value)
        # A named tuple is made from its fields.
        return value._make(rebuilt) if hasattr(value, "_make") else rebuilt
    return None if value is None else next(tokens)


def _seconds(now: dt.datetime | None) -> int:
    seconds = int((now or dt.datetime.now(dt.UTC)).timestamp())
    if not 0 <= seconds < 1 << 32:
        raise UsageError("`now` is before 1970 or after 2106, which the metadata cannot say")
    return seconds
