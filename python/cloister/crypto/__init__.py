"""Encrypting for an app with its public key alone, and decrypting with its private ones.

The ``ev:`` strings and ``%EVENC`` files are those of the hosted product: the enclave opens them on
the way to the application, and its published SDKs read and write them with the same keys. Every
version of either is opened; what is written is on P-256.

- :func:`encrypt`, :func:`decrypt`: a value, or all of them wherever they stand in ``dict``,
  ``list`` and ``tuple``. Encrypted are ``str``, ``bytes``, ``int``, ``float`` and ``bool``;
  ``None`` and the keys of a ``dict`` stay in clear. The internal API of an enclave follows the
  same rules.
- :func:`encrypt_json`, :func:`decrypt_json`: a JSON document as it is written, so ``1.10`` stays
  ``1.10``.
- :func:`encrypt_file`, :func:`decrypt_file`: binary streams.
- :class:`Keyring`: the private keys that open; :func:`read_private_key` and
  :func:`read_public_key` read keys.

What was decrypted is an ordinary Python object, which nobody wipes.
"""

from cloister._native.crypto import Keyring
from cloister.crypto.files import MAX_FILE_BYTES, decrypt_file, encrypt_file
from cloister.crypto.keys import PUBLIC_KEY_BYTES, read_private_key, read_public_key
from cloister.crypto.shape import MAX_DEPTH
from cloister.crypto.values import (
    decrypt,
    decrypt_json,
    encrypt,
    encrypt_json,
    encrypt_literal,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_FILE_BYTES",
    "PUBLIC_KEY_BYTES",
    "Keyring",
    "decrypt",
    "decrypt_file",
    "decrypt_json",
    "encrypt",
    "encrypt_file",
    "encrypt_json",
    "encrypt_literal",
    "read_private_key",
    "read_public_key",
]
