"""Where something stands in a Dockerfile, and the error that says so."""

import dataclasses

from cloister.errors import MalformedImage

NEEDS_CONTAINER = (
    "`--builder docker`, `buildah` and `podman` run containers, the native builder does not;"
    " or build the files first and COPY them"
)
"""What to do about an instruction that runs something."""
NEEDS_BASE = (
    "`--builder docker`, `buildah` and `podman` fetch images; for the native builder save it"
    " (`docker save NAME -o base.tar`) and write `FROM docker-archive:base.tar`, or"
    " `oci-archive:FILE`, `oci:FOLDER`: paths are relative to the context"
)
"""What to do about a base image that is in a registry."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A line of a file.

    Args:
        file: Its name, for messages.
        line: Counted from 1.
    """

    file: str
    line: int

    @property
    def prefix(self) -> str:
        """What every message about this line begins with."""
        return f"{self.file}:{self.line}: "

    def error(self, message: str, *, hint: str | None = None) -> MalformedImage:
        """The error that names this line."""
        return MalformedImage(f"{self.prefix}{message}", hint=hint)

    def wrap(self, problem: MalformedImage) -> MalformedImage:
        """An error from elsewhere, which names this line from here on."""
        if problem.message.startswith(f"{self.file}:"):
            return problem
        return self.error(problem.message, hint=problem.hint)
