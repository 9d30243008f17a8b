"""The platform over HTTPS, as a host reaches it: the calls of wire.md, section 5.

The host's token has the scope ``relay`` for its enclaves and nothing more; what comes back is
random or sealed. The platform's own time counts, so the ``now`` of a call is not sent.
"""

import base64
import binascii
import datetime as dt
import threading
import time
from typing import Any
from uuid import UUID

from cloister.errors import TransportError
from cloister.platform.https import PlatformClient
from cloister.platform.interface import ActiveDeployment


class RemotePlatform:
    """A :class:`~cloister.platform.interface.Platform` that asks a server.

    Args:
        client: The connection, with a token of scope ``relay``.
    """

    def __init__(self, client: PlatformClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._boots: dict[UUID, bytes] = {}
        self._waited: dict[UUID, tuple[int, bytes | None, float]] = {}

    def issue_challenge(self, enclave_uuid: UUID | str) -> bytes:
        """Gets a challenge for this enclave.

        Raises:
            ReleaseRefused: There is no such enclave, or it has too many open challenges.
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached.
        """
        body = {"enclave": str(enclave_uuid)}
        made = self._client.send("POST", "/v1/challenge", body, may_repeat=True)
        return _bytes(made, "challenge")

    def provision(
        self,
        enclave_uuid: UUID | str,
        document: bytes,
        now: dt.datetime | None = None,  # noqa: ARG002 - the platform has its own
    ) -> bytes:
        """Hands a document over and gets a sealed bundle. It is sent once: its challenge is.

        Raises:
            ReleaseRefused: A check of wire.md §3 does not hold; the message says which.
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached.
        """
        body = {
            "enclave": str(enclave_uuid),
            "attestation_doc": base64.b64encode(document).decode(),
        }
        return _bytes(self._client.send("POST", "/v1/provision", body, deadline_s=30.0), "bundle")

    def newer_bundle(
        self,
        enclave_uuid: UUID | str,
        after: int,
        *,
        boot_key: bytes | None = None,
        now: dt.datetime | None = None,  # noqa: ARG002 - the platform has its own
    ) -> bytes | None:
        """Gets the bundle of a boot, when it needs one.

        Raises:
            ReleaseRefused: No such enclave or boot, or its deployment is not active any more.
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached, or no boot key was given yet.
        """
        uuid = UUID(str(enclave_uuid))
        with self._lock:
            key = boot_key or self._boots.get(uuid)
            if key is None:
                raise TransportError("the platform is asked for a bundle of a boot without its key")
            known, self._boots[uuid] = self._boots.get(uuid), key
            waited = self._waited.pop(uuid, None) if known == key else None
        if waited is not None and waited[0] == after:
            _, sealed, at = waited
            # The wait that ended a moment ago has asked at its end.
            if sealed is not None or time.monotonic() - at < FRESH_SECONDS:
                return sealed
        return self._bundle(uuid, after, key, wait_s=0)

    def wait_for_change(self, enclave_uuid: UUID | str, after: int, timeout_s: float) -> bool:
        """Waits at the platform for a bundle, which the next :meth:`newer_bundle` returns.

        Raises:
            ReleaseRefused: There is no such enclave, or nothing is released to it any more.
            TransportError: The platform cannot be reached.
        """
        uuid = UUID(str(enclave_uuid))
        with self._lock:
            key = self._boots.get(uuid)
        if key is None:
            raise TransportError("the platform is asked for a bundle of a boot without its key")
        sealed = self._bundle(uuid, after, key, wait_s=min(timeout_s, LONGEST_WAIT_SECONDS))
        with self._lock:
            self._waited[uuid] = (after, sealed, time.monotonic())
        return sealed is not None

    def active_deployments(self, enclave_uuid: UUID | str) -> list[ActiveDeployment]:
        """Asks what a host is to run of an enclave: its active deployments, the newest first.

        Raises:
            ReleaseRefused: There is no such enclave.
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached, or its answer cannot be read.
        """
        found = self._client.get("/v1/desired", enclave=enclave_uuid)
        try:
            return [_active_deployment(one) for one in found["deployments"]]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TransportError("the platform's answer is not a list of deployments") from None

    def record_event(self, enclave_uuid: UUID | str, kind: str, message: str) -> None:
        """Tells the platform what an enclave reports.

        Raises:
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached.
        """
        body = {"enclave": str(enclave_uuid), "kind": kind[:256], "message": message[:4096]}
        self._client.send("POST", "/v1/events", body)

    def record_object(  # noqa: PLR0913 - the parts of one head
        self,
        enclave_uuid: UUID | str,
        *,
        boot_key: bytes,
        name: str,
        version: int,
        sha256: bytes,
        proof: bytes,
    ) -> bool:
        """Has the platform record a head.

        Raises:
            InputError: A field is out of its bounds.
            ReleaseRefused: The platform does not take it from this boot.
            PermissionRefused: The token is not for this enclave.
            TransportError: The platform cannot be reached.
        """
        body = {
            "enclave": str(enclave_uuid),
            "boot_key": boot_key.hex(),
            "name": name,
            "version": version,
            "sha256": sha256.hex(),
            "proof": proof.hex(),
        }
        found = self._client.send("POST", "/v1/objects/head", body, may_repeat=True)
        recorded = found.get("recorded") if isinstance(found, dict) else None
        if not isinstance(recorded, bool):
            raise TransportError("the platform's answer does not say whether it recorded the head")
        return recorded

    def close(self) -> None:
        """Ends waits between attempts, and requests in flight."""
        self._client.close()

    def _bundle(self, uuid: UUID, after: int, key: bytes, *, wait_s: float) -> bytes | None:
        found = self._client.get(
            "/v1/bundle",
            deadline_s=wait_s + SLACK_SECONDS,
            enclave=uuid,
            after=after,
            boot_key=key.hex(),
            wait=f"{wait_s:.3f}",
        )
        return None if found is None else _bytes(found, "bundle")


def _bytes(found: Any, name: str) -> bytes:  # noqa: ANN401 - any JSON
    try:
        return base64.b64decode(found[name], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise TransportError(f"the platform's answer has no `{name}` in base64") from None


def _active_deployment(found: Any) -> ActiveDeployment:  # noqa: ANN401 - any JSON
    pcrs = {int(index): bytes.fromhex(value) for index, value in found["pcrs"].items()}
    if not {0, 1, 2} <= pcrs.keys() or any(len(value) != PCR_BYTES for value in pcrs.values()):
        raise ValueError("a register is missing or has another length")
    return ActiveDeployment(id=str(found["id"]), pcrs=pcrs)


LONGEST_WAIT_SECONDS = 20.0  # the server takes 25
SLACK_SECONDS = 10.0
FRESH_SECONDS = 0.5
PCR_BYTES = 48  # SHA-384
