"""One thing in which two images differ."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is not the same.

    Args:
        section: ``header``, ``kernel``, ``cmdline``, ``metadata``, ``signature``, ``ramdisk 0``, …
        path: The file; empty: the section itself.
        what: The attribute: ``content``, ``mode``, ``owner``, ``time``, ``link``, ``kind``,
            ``hard links``, ``added``, ``removed``, or a key of a JSON file.
        first: What the first image has; ``None``: nothing.
        second: What the second has.
        pcrs: Registers that it touches.
        note: What it comes from, as far as the bytes tell; ``None``: nothing is known.
    """

    section: str
    path: str = ""
    what: str
    first: str | None
    second: str | None
    pcrs: tuple[str, ...]
    note: str | None = None

    def described(self) -> dict[str, Any]:
        """One object with stable keys."""
        return dataclasses.asdict(self) | {"pcrs": list(self.pcrs)}
