"""Where something stands in a Dockerfile, and the error that says so."""

import dataclasses

from cloister.errors import MalformedImage

ONLY_NATIVE = (
    "`--builder native` is the only builder of this version: it takes single-stage Dockerfiles"
    " `FROM scratch` without RUN; build the files first (as `make hello` does) and COPY them"
)
"""What to do about an instruction that needs a container or another image."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A line of a file.

    Args:
        file: Its name, for messages.
        line: Counted from 1.
    """

    file: str
    line: int

    def error(self, message: str, *, hint: str | None = None) -> MalformedImage:
        """The error that names this line."""
        return MalformedImage(f"{self.file}:{self.line}: {message}", hint=hint)
