"""Counters of the Rust servers, as they come over the boundary."""

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
