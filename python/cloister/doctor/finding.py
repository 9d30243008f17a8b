"""One line of the examination."""

import dataclasses
import enum


class State(enum.StrEnum):
    """How it is."""

    OK = "ok"
    INFO = "info"
    """Not needed for the work that was asked about."""
    WARN = "warn"
    """The work can be done, with less than there could be."""
    FAIL = "fail"
    """The work cannot be done."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found about one thing.

    Args:
        id: Its stable name, for programs: ``user-namespaces``.
        state: How it is.
        found: What was found.
        fix: What to do about it; ``None``: nothing has to be done.
    """

    id: str
    state: State
    found: str
    fix: str | None = None


def ok(name: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(id=name, state=State.OK, found=found)


def info(name: str, found: str, fix: str | None = None) -> Finding:
    """It is not needed here."""
    return Finding(id=name, state=State.INFO, found=found, fix=fix)


def warn(name: str, found: str, fix: str) -> Finding:
    """The work can be done without it."""
    return Finding(id=name, state=State.WARN, found=found, fix=fix)


def fail(name: str, found: str, fix: str) -> Finding:
    """The work cannot be done without it."""
    return Finding(id=name, state=State.FAIL, found=found, fix=fix)


def gib(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / (1 << 30):.1f} GiB"
