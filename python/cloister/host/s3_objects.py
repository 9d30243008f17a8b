"""The object store of enclaves in a bucket of S3, for hosts of several machines.

Conditions are S3's own: ``If-None-Match: *`` and ``If-Match`` on writes and removals (S3 User
Guide, "Conditional requests"), so hosts agree without talking to each other. Who can read the
bucket sees what a host sees: sealed bytes. Credentials, region and endpoint are found by boto3 as
everywhere else. It needs ``cloister[aws]``; nothing imports it without a bucket.
"""

import contextlib
import uuid
from collections.abc import Iterator

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cloister.errors import InputError, OutputError
from cloister.host.objects import (
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    PreconditionFailed,
    checked_name,
    to_let_go,
)


class S3Objects:
    """Objects in a bucket. See :class:`~cloister.host.objects.ObjectStore`.

    Args:
        bucket: Its name; it has to be there.
        prefix: What every key begins with.
        limit: How many objects an enclave may have, less than 1000.
    """

    def __init__(self, bucket: str, *, prefix: str = "", limit: int = MAX_OBJECTS) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._limit = limit
        self._client = boto3.client(
            "s3",
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ),
        )

    def read(self, enclave: uuid.UUID, name: str) -> tuple[bytes, str] | None:
        """Returns an object and its entity tag, or ``None``.

        Raises:
            InputError: ``name`` is not a name.
            OutputError: S3 refuses or cannot be reached, or the object is longer than one can be.
        """
        key = self._key(enclave, name)
        try:
            with _as_output_errors():
                found = self._client.get_object(Bucket=self._bucket, Key=key)
                body = found["Body"].read(MAX_OBJECT_BYTES + 1)
        except _Absent:
            return None
        if len(body) > MAX_OBJECT_BYTES:
            raise OutputError(f"the object is longer than {MAX_OBJECT_BYTES} bytes")
        return body, found["ETag"]

    def write(
        self,
        enclave: uuid.UUID,
        name: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> str:
        """Replaces an object whole and returns its entity tag.

        Raises:
            InputError: ``name`` is not a name, ``body`` is longer than ``MAX_OBJECT_BYTES``, or a
                condition is one that S3 does not have.
            PreconditionFailed: A condition does not hold; nothing was changed.
            OutputError: S3 refuses or cannot be reached, or there is no room.
        """
        key = self._key(enclave, name)
        if len(body) > MAX_OBJECT_BYTES:
            raise InputError(f"an object is at most {MAX_OBJECT_BYTES} bytes long")
        conditions: dict[str, str] = {}
        if if_none_match is not None:
            if if_none_match.strip() != "*":
                raise InputError("`If-None-Match` of a write is `*` or absent")
            conditions["IfNoneMatch"] = "*"
        if if_match is not None:
            conditions["IfMatch"] = if_match
        try:
            with _as_output_errors():
                if if_match is None:
                    self._make_room(enclave, name)
                made = self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=body,
                    **conditions,
                )
        except _Absent:
            raise PreconditionFailed("the object is another one by now") from None
        return str(made["ETag"])

    def remove(self, enclave: uuid.UUID, name: str, *, if_match: str | None = None) -> bool:
        """Removes an object; ``False`` when there is none.

        Raises:
            InputError: ``name`` is not a name.
            PreconditionFailed: It is not the object that the caller asked for.
            OutputError: S3 refuses or cannot be reached.
        """
        key = self._key(enclave, name)
        condition = {} if if_match is None else {"IfMatch": if_match}
        try:
            with _as_output_errors():
                self._client.head_object(Bucket=self._bucket, Key=key)
                self._client.delete_object(
                    Bucket=self._bucket,
                    Key=key,
                    **condition,
                )
        except _Absent:
            if if_match is not None:
                raise PreconditionFailed("the object is another one by now") from None
            return False
        return True

    def _make_room(self, enclave: uuid.UUID, name: str) -> None:
        start = f"{self._prefix}{enclave}/"
        listed = self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=start, MaxKeys=self._limit + 1
        )
        kept = [
            (entry["Key"].removeprefix(start), entry["LastModified"].timestamp())
            for entry in listed.get("Contents", [])
        ]
        if name in {other for other, _ in kept}:
            return
        old = to_let_go(kept, name, limit=self._limit)
        if old is not None:
            self._client.delete_object(Bucket=self._bucket, Key=start + old)

    def _key(self, enclave: uuid.UUID, name: str) -> str:
        return f"{self._prefix}{enclave}/{checked_name(name)}"


class _Absent(Exception):
    """There is no such object."""


@contextlib.contextmanager
def _as_output_errors() -> Iterator[None]:
    """What S3 says, as our errors. Its words may repeat what was sent: the code is enough."""
    try:
        yield
    except ClientError as problem:
        code = str(problem.response.get("Error", {}).get("Code", ""))
        if code in {"NoSuchKey", "404", "NotFound"}:
            raise _Absent from None
        if code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            raise PreconditionFailed("the object is another one by now") from None
        shown = code if code.isidentifier() else "an error"
        raise OutputError(f"the bucket's object cannot be read or written: {shown}") from None
    except BotoCoreError as problem:
        raise OutputError(f"S3 cannot be reached: {type(problem).__name__}") from None


CONNECT_SECONDS = 3
READ_SECONDS = 5
ATTEMPTS = 2  # the enclave asks again
