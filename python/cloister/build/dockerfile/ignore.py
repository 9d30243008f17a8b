"""``.dockerignore``: which files of the context are not there, as moby's patternmatcher says.

Patterns are those of Go's ``filepath.Match`` with ``**`` for any number of folders; ``!`` takes a
file back; the last pattern that matches decides; a pattern that matches a folder matches what is
below it.
"""

import dataclasses
import pathlib
import re

from cloister.build.dockerfile.glob import compiled
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True)
class Ignore:
    """The patterns of a context.

    Args:
        patterns: Pattern and whether it takes a file back.
    """

    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @classmethod
    def of(cls, context: pathlib.Path, dockerfile: pathlib.Path) -> "Ignore":
        """Reads ``<Dockerfile>.dockerignore`` beside the Dockerfile, else ``.dockerignore``.

        Raises:
            MalformedImage: A pattern is wrong, with its line.
        """
        own = dockerfile.with_name(dockerfile.name + ".dockerignore")
        for file in (own, context / ".dockerignore"):
            try:
                return cls.read(file.read_text(encoding="utf-8"), str(file))
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as problem:
                raise MalformedImage(f"`{file}` cannot be read: {problem}") from problem
        return cls()

    @classmethod
    def read(cls, text: str, file: str) -> "Ignore":
        """Reads the text of a file."""
        patterns = []
        for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
            line = raw.strip()
            if not line or raw.startswith("#"):
                continue
            takes_back = line.startswith("!")
            cleaned = _clean(line[1:].strip() if takes_back else line)
            if not cleaned:
                continue
            try:
                patterns.append((compiled(cleaned), takes_back))
            except ValueError as problem:
                raise MalformedImage(f"{file}:{number}: {problem}") from None
        return cls(tuple(patterns))

    def leaves_out(self, path: str) -> bool:
        """Whether a file or folder of the context, by its relative path, is not there."""
        parts = path.split("/")
        names = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        is_out = False
        for pattern, takes_back in self.patterns:
            if is_out is not takes_back:
                continue  # It would change nothing.
            if any(pattern.fullmatch(name) for name in names):
                is_out = not takes_back
        return is_out

    @property
    def may_take_back(self) -> bool:
        """Whether something below a folder that is left out may be there again."""
        return any(takes_back for _, takes_back in self.patterns)


def _clean(pattern: str) -> str:
    """The pattern as a relative path, as Go's ``filepath.Clean`` makes it."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            del parts[-1:]
        else:
            parts.append(part)
    return "/".join(parts)
