"""Counters of the Rust servers, as they come over the boundary, and what a host says of itself."""

import dataclasses
import uuid
from typing import TypedDict


class RelayStats(TypedDict):
    """Counters of a relay since its start; ``active`` is how many connections there are."""

    accepted: int
    active: int
    refused: int
    connect_errors: int
    failed: int
    idle_closed: int
    bytes_in: int
    bytes_out: int
    last_error: str | None


class AgentStats(TypedDict):
    """Counters of an agent server since its start."""

    requests: int
    refused: int
    failed: int
    records: int
    duplicates: int
    acked: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """What a service does now.

    Args:
        enclave: Which enclave.
        address: Where clients are accepted; ``None``: they are not yet.
        deployment: What serves; ``None``: nothing does.
        is_ready: The enclave says that it serves.
        state: ``waiting`` (for the platform, or for an image), ``starting``, or what the enclave
            says of itself.
        reason: Why it is not ready.
        knows_platform: The platform answered when it was asked last.
        boots: Boots that became ready, since the start.
        failures: Boots that did not, or that ended by themselves.
        relay: Counters of the relay; ``None`` before clients are accepted.
    """

    enclave: uuid.UUID
    address: str | None
    deployment: str | None
    is_ready: bool
    state: str
    reason: str | None
    knows_platform: bool
    boots: int
    failures: int
    relay: RelayStats | None
