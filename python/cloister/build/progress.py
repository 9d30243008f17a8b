"""What a build tells while it works: stages with bytes, and the lines of a builder."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the bytes that were done since the last call; from any thread."""


class Progress(Protocol):
    """Who is told."""

    def stage(
        self, label: str, *, size: int | None = None
    ) -> contextlib.AbstractContextManager[Advance]:
        """A stage, for as long as the block that it opens.

        Args:
            label: What is done.
            size: Bytes that it takes, when that is known.
        """

    def tell(self, line: str) -> None:
        """A line of a builder, without control characters."""


class Silent:
    """Tells nobody."""

    @contextlib.contextmanager
    def stage(self, label: str, *, size: int | None = None) -> Iterator[Advance]:  # noqa: ARG002
        """A stage."""
        yield lambda _: None

    def tell(self, line: str) -> None:
        """A line of a builder."""
