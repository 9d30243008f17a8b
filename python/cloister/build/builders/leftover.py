"""Takes away the containers of a build that was cut short.

podman ends without tidying up when it is told to stop. Nothing marks a working container as the
work of one build, so only those that were not there before are removed, and only while no other
builder runs on this machine whose they could be.
"""

import contextlib
import json
import pathlib
from collections.abc import Sequence
from types import TracebackType

from cloister.build.builders import child
from cloister.build.builders.protocol import Tell

BUILDERS = {"buildah", "podman"}


class Leftover:
    """A block in which a builder runs.

    Args:
        tool: The program and its own options.
        listing: Its arguments that list all containers as JSON.
        tell: Told about containers that could not be removed.
    """

    def __init__(self, tool: Sequence[str], listing: Sequence[str], tell: Tell) -> None:
        self._tool = list(tool)
        self._listing = list(listing)
        self._tell = tell
        self._before: set[str] | None = None

    def __enter__(self) -> None:
        self._before = self._containers()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or self._before is None or _is_another_running():
            return
        made = (self._containers() or set()) - self._before
        if not made:
            return
        try:
            child.ask([*self._tool, "rm", *sorted(made)])
        except child.NoAnswer as reason:
            self._tell(f"containers are left ({', '.join(sorted(made))}): {reason}")

    def _containers(self) -> set[str] | None:
        """Identities of all containers; ``None`` when they cannot be listed."""
        try:
            told = json.loads(child.ask([*self._tool, *self._listing])) or []
            return {str(item.get("id") or item["Id"]) for item in told}
        except (child.NoAnswer, ValueError, KeyError, TypeError, AttributeError):
            return None


def _is_another_running() -> bool:
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text().strip() in BUILDERS:
                    return True
    return False
