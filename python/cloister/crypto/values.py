"""Values and JSON documents: one call of the extension for all of them."""

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import Any

from cloister._native import crypto as _native
from cloister.crypto import shape
from cloister.crypto.keys import read_public_key
from cloister.errors import InputError, UsageError


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
            that is not text, or is nested deeper than :data:`cloister.crypto.MAX_DEPTH`.
    """
    tokens = _native.encrypt_values(
        [_leaf(leaf) for leaf in shape.leaves(value)],
        read_public_key(public_key),
        version=version,
        role=_role(role),
        unix_seconds=_seconds(now),
    )
    following = iter(tokens)
    return shape.rebuilt(value, lambda _: next(following))


def decrypt(
    value: Any,  # noqa: ANN401 - any value of the kinds in the package's docstring
    keyring: _native.Keyring,
    *,
    parse_float: Callable[[str], Any] = float,
) -> Any:  # noqa: ANN401 - the same shape
    """Decrypts every ciphertext inside a value, and returns the same shape.

    A text that is a ciphertext becomes what was encrypted, with its type; what stands in longer
    text is put there in place, as an enclave does. Everything else stays as it is. ``bytes`` that
    were encrypted come back as ``str`` when they are UTF-8: a ciphertext does not tell them apart.

    Args:
        value: What to decrypt.
        keyring: The app's private keys.
        parse_float: Makes a number of text with a fraction or an exponent; ``decimal.Decimal``
            keeps every digit.

    Raises:
        MalformedCiphertext: A ciphertext cannot be opened with any of the keys.
        InputError: A number is too large for what it becomes, what stands in longer text is not
            UTF-8, a key is not text, or the value is nested deeper than
            :data:`cloister.crypto.MAX_DEPTH`.
    """
    whole = [_text(leaf) for leaf in shape.leaves(value) if _is_token_like(leaf)]
    opened = iter(keyring.decrypt_values(whole))

    def clear(leaf: Any) -> Any:  # noqa: ANN401
        if _is_token_like(leaf):
            found = next(opened)
            if found is not None:
                return _typed(*found, parse_float)
        return _in_place(leaf, keyring) if isinstance(leaf, str) else leaf

    return shape.rebuilt(value, clear)


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
        role=_role(role),
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
        InputError: ``document`` is not JSON, or nested deeper than
            :data:`cloister.crypto.MAX_DEPTH`.
    """
    return _native.encrypt_json(
        document,
        read_public_key(public_key),
        version=version,
        role=_role(role),
        unix_seconds=_seconds(now),
    )


def decrypt_json(document: bytes, keyring: _native.Keyring) -> bytes:
    """Decrypts the ciphertexts in a JSON document; everything else stays as it is, to the byte.

    That the document is JSON is not checked. One without a ciphertext is returned itself.

    Raises:
        MalformedCiphertext: A ciphertext cannot be opened with any of the keys; the message says
            where.
    """
    return keyring.decrypt_json(document)


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


def _is_token_like(leaf: Any) -> bool:  # noqa: ANN401
    """Whether a leaf may be one ciphertext and nothing else; Rust decides."""
    if isinstance(leaf, str):
        return leaf.startswith("ev:") and leaf.endswith(":$") and leaf.isascii()
    return isinstance(leaf, bytes) and leaf.startswith(b"ev:") and leaf.endswith(b":$")


def _text(leaf: str | bytes) -> str:
    # What is not ASCII is no ciphertext either way; each byte stays a character.
    return leaf if isinstance(leaf, str) else leaf.decode("latin-1")


def _typed(kind: str, text: bytes, parse_float: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if kind == "boolean":
        return text == b"true"
    if kind == "number":
        return _number(text.decode(), parse_float)
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _number(text: str, parse_float: Callable[[str], Any]) -> Any:  # noqa: ANN401
    if not set(text) & set(".eE"):
        try:
            return int(text)
        except ValueError:  # the interpreter's own limit, sys.get_int_max_str_digits()
            raise InputError("an integer has more digits than this interpreter reads") from None
    number = parse_float(text)
    if isinstance(number, float) and math.isinf(number):
        raise InputError(
            "a number is too large for a float", hint="give `parse_float=decimal.Decimal`"
        )
    return number


def _in_place(text: str, keyring: _native.Keyring) -> str:
    """Ciphertexts inside longer text, by the rules for a string of a JSON document."""
    if "ev:" not in text:
        return text
    document = json.dumps(text).encode()
    opened = keyring.decrypt_json(document)
    if opened == document:
        return text
    try:
        # Control characters of a clear text are escaped, as JSON has them.
        found: str = json.loads(opened)
    except UnicodeDecodeError:
        raise InputError("a clear text inside longer text is not UTF-8") from None
    return found


def _role(role: str | None) -> str | None:
    """What Rust judges; a lone surrogate, a byte of a command line, does not come as far."""
    if role is not None and not role.isascii():
        raise UsageError("a data role is 1 to 20 of a to z, 0 to 9 and hyphen")
    return role


def _seconds(now: dt.datetime | None) -> int:
    seconds = int((now or dt.datetime.now(dt.UTC)).timestamp())
    if not 0 <= seconds < 1 << 32:
        raise UsageError("`now` is before 1970 or after 2106, which the metadata cannot say")
    return seconds
