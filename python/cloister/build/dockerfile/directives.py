"""Parser directives: comments at the very top of a Dockerfile that say how it is read.

``syntax`` names the frontend, which is this program here; ``escape`` the escape character;
``check`` which warnings are left out, and whether the others are errors.
"""

import dataclasses
import re
from collections.abc import Sequence

from cloister.build.dockerfile.place import NEEDS_CONTAINER, Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """What the first lines set.

    Args:
        escape: The escape character, a backslash or a backtick.
        skipped: Rules of which nothing is said, lower case; ``all``: of none.
        is_strict: A warning is an error.
    """

    escape: str = "\\"
    skipped: frozenset[str] = frozenset()
    is_strict: bool = False


def read_directives(lines: Sequence[str], file: str) -> tuple[Directives, int]:
    """The directives, and how many lines they take.

    The first line that is none ends them: from there on they are comments.

    Args:
        lines: The Dockerfile, with line ends.
        file: Its name, for messages.

    Raises:
        MalformedImage: A directive is there twice, or its value is not known.
    """
    found: dict[str, str] = {}
    directives = Directives()
    for index, raw in enumerate(lines):
        match = _DIRECTIVE.fullmatch(raw.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _KNOWN:
            return directives, index
        place = Place(file, index + 1)
        if name in found:
            raise place.error(f"the directive `{name}` is there twice")
        found[name] = value = match[2]
        if name == "escape":
            if value not in ("\\", "`"):
                raise place.error(f"`escape` is {value!r}, expected a backslash or a backtick")
            directives = dataclasses.replace(directives, escape=value)
        elif name == "check":
            directives = _check(value, directives, place)
        elif "dockerfile" not in value:
            raise place.error(
                f"`syntax` names the frontend {value[:80]!r}: the file is no Dockerfile",
                hint=NEEDS_CONTAINER,
            )
    return directives, len(lines)


def _check(value: str, directives: Directives, place: Place) -> Directives:
    """``skip=Rule,…;error=true``, as the Dockerfile reference says."""
    for part in value.split(";"):
        key, _, text = part.strip().partition("=")
        if key == "skip":
            names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
            directives = dataclasses.replace(directives, skipped=names)
        elif key == "error" and text.lower() in ("true", "false"):
            directives = dataclasses.replace(directives, is_strict=text.lower() == "true")
        else:
            raise place.error(
                f"`check` has {part.strip()[:60]!r}, expected skip=RULE,… or error=true"
            )
    return directives


_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+)", re.DOTALL)
_KNOWN = {"syntax", "escape", "check"}
