"""A master key wrapped by AWS KMS.

Two calls of its API, ``GenerateDataKey`` and ``Decrypt``, with an encryption context (KMS Developer
Guide, "Encryption context"): a policy of the key can name it, and a wrapped key of the other class
does not open. One of another store of its class does: a store may be restored from a backup, which
brings its wrapped key. Credentials and endpoint are found by boto3 as everywhere else.
"""

import re
from collections.abc import Mapping

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cloister.errors import ConfigError, StoreError


class AwsKms:
    """A key of AWS KMS.

    Args:
        arn: ``arn:aws:kms:REGION:ACCOUNT:key/ID``, or that of an alias.

    Raises:
        ConfigError: Not the ARN of a key.
    """

    def __init__(self, arn: str) -> None:
        found = ARN.fullmatch(arn)
        if found is None:
            raise ConfigError(
                "the master key's address is not the ARN of a KMS key: expected"
                " kms://arn:aws:kms:REGION:ACCOUNT:key/ID"
            )
        self._arn = arn
        self._client = boto3.client(
            "kms",
            region_name=found["region"],
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    @property
    def uri(self) -> str:
        """``kms://`` and the ARN."""
        return f"kms://{self._arn}"

    def generate(self, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """Makes a data key (AES-256) and returns it clear and wrapped.

        Raises:
            StoreError: KMS refuses or cannot be reached.
        """
        try:
            made = self._client.generate_data_key(
                KeyId=self._arn, KeySpec="AES_256", EncryptionContext=dict(context)
            )
        except (ClientError, BotoCoreError) as problem:
            raise _failed("make a data key", problem) from problem
        return bytes(made["Plaintext"]), bytes(made["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Opens a wrapped data key.

        Raises:
            StoreError: KMS refuses or cannot be reached.
        """
        try:
            # Named again, so that what was wrapped under another key does not open (Decrypt).
            opened = self._client.decrypt(
                KeyId=self._arn, CiphertextBlob=wrapped, EncryptionContext=dict(context)
            )
        except (ClientError, BotoCoreError) as problem:
            raise _failed("open the master key", problem) from problem
        return bytes(opened["Plaintext"])


def _failed(what: str, problem: Exception) -> StoreError:
    code = type(problem).__name__
    if isinstance(problem, ClientError):
        code = str(problem.response.get("Error", {}).get("Code", code))
    return StoreError(
        f"AWS KMS does not {what}: {code}",
        hint="credentials, region and the policy of the key decide: `aws kms describe-key`",
    )


ARN = re.compile(
    r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]{1,256}"
)
CONNECT_SECONDS = 5
READ_SECONDS = 10
ATTEMPTS = 3
