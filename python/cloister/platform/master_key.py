"""Where the master key of a store comes from: a file beside it, or a key service that wraps it.

A key service (AWS KMS, ``kms://ARN``) makes a data key once, when the store is made. The store
keeps it wrapped; whoever may use the service's key with the context of its class opens it at each
start. Nothing else is asked of the service, so it is not needed while the platform runs.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from cloister.errors import ConfigError
from cloister.platform.trust_class import TrustClass


class KeyService(Protocol):
    """Wraps a data key under a key that never leaves the service."""

    @property
    def uri(self) -> str:
        """What the store remembers it by."""

    def generate(self, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """Makes a data key of 32 bytes and returns it clear and wrapped.

        Raises:
            StoreError: The service refuses or cannot be reached.
        """

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Opens a wrapped data key; the context must be that of its making.

        Raises:
            StoreError: The service refuses or cannot be reached.
        """


KeyServices = Callable[[str], KeyService]
"""Finds the key service of a ``kms://…``."""


def key_service(uri: str) -> KeyService:
    """The key service of an address: ``kms://`` and the ARN of a key in AWS KMS.

    Raises:
        ConfigError: Not such an address, or the AWS library is not installed.
    """
    if not uri.startswith(AWS_PREFIX):
        raise ConfigError(
            "the master key's address is unknown: expected `file`, or kms:// and the ARN of a key"
        )
    try:
        from cloister.platform import aws_kms  # noqa: PLC0415 - boto3 is an extra
    except ModuleNotFoundError:
        raise ConfigError(
            "a master key in AWS KMS needs boto3, which is not installed",
            hint="pip install 'cloister[aws]'",
        ) from None
    return aws_kms.AwsKms(uri.removeprefix(AWS_PREFIX))


def context_of(trust_class: TrustClass) -> dict[str, str]:
    """What a wrapped key is bound to: AWS shows it in its audit log, so it holds no secret."""
    return {"cloister": "store/v2", "trust_class": trust_class.value}


AWS_PREFIX = "kms://"
