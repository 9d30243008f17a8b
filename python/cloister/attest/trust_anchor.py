"""The root certificate that a document's chain must lead to."""

import binascii
import dataclasses
import logging
import os
import pathlib
import re
from typing import Self

from cloister.errors import KeyFileError, MissingInput

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class TrustAnchor:
    """A root. Made by :meth:`aws_nitro`, the default everywhere, or :meth:`dangerous_root`.

    Args:
        dangerous_der: Another root than the pinned one, in DER; ``None`` for the pinned one.
    """

    dangerous_der: bytes | None = None

    @classmethod
    def aws_nitro(cls) -> Self:
        """The pinned root of AWS Nitro Enclaves."""
        return cls()

    @classmethod
    def dangerous_root(cls, path: str | os.PathLike[str]) -> Self:
        """A root from a file in PEM or DER, such as a development root.

        Whoever holds its key can write any document; for development and tests.

        Raises:
            MissingInput: There is no such file.
            KeyFileError: It cannot be read, or holds no certificate.
        """
        file = pathlib.Path(path)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            raise MissingInput(f"`{file}` does not exist") from None
        except OSError as problem:
            raise KeyFileError(f"`{file}` cannot be read: {problem.strerror}") from problem
        return cls.dangerous_root_data(data, name=str(file))

    @classmethod
    def dangerous_root_data(cls, data: bytes, *, name: str = "root") -> Self:
        """A root from the contents of a file; see :meth:`dangerous_root`."""
        if b"-----BEGIN" in data:
            blocks = re.findall(
                rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", data, re.DOTALL
            )
            if len(blocks) != 1:
                raise KeyFileError(f"`{name}` has {len(blocks)} certificates, expected one")
            try:
                data = binascii.a2b_base64(b"".join(blocks[0].split()), strict_mode=True)
            except binascii.Error as problem:
                raise KeyFileError(f"`{name}` is not PEM: {problem}") from problem
        if not data.startswith(b"\x30"):
            raise KeyFileError(f"`{name}` is not a certificate in PEM or DER")
        _log.warning("documents are believed under the root of %s, not under the one of AWS", name)
        return cls(data)

    @property
    def is_aws_nitro(self) -> bool:
        """True for :meth:`aws_nitro`."""
        return self.dangerous_der is None
