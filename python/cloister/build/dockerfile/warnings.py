"""What a Dockerfile does that is allowed and seldom meant: BuildKit's build checks, by their names.

The directive ``check`` leaves some out, or makes errors of them (Dockerfile reference, check).
Only checks that concern this builder are here; the names are those of the reference, so that a
``skip=`` that was written for Docker means the same.
"""

from cloister.build.dockerfile.directives import Directives
from cloister.build.dockerfile.place import Place
from cloister.errors import MalformedImage

DUPLICATE_STAGE_NAME = "DuplicateStageName"
JSON_ARGS = "JSONArgsRecommended"
LEGACY_PAIR = "LegacyKeyValueFormat"
MAINTAINER = "MaintainerDeprecated"
MULTIPLE = "MultipleInstructionsDisallowed"
NO_EMPTY_CONTINUATION = "NoEmptyContinuation"
UNDEFINED_VARIABLE = "UndefinedVar"


class Warnings:
    """What was noticed, each with its line.

    Args:
        directives: Which checks are made, and what one that fails means.
    """

    def __init__(self, directives: Directives) -> None:
        self._directives = directives
        self._found: dict[str, None] = {}
        self._rules: list[str] = []

    def check(self, rule: str, place: Place, text: str) -> None:
        """A check failed.

        Args:
            rule: Its name in BuildKit's reference.
            place: The line.
            text: What is wrong, and what is better.
        """
        if {rule.lower(), "all"} & self._directives.skipped:
            return
        self._found[f"{place.file}:{place.line}: {text} ({rule})"] = None
        self._rules.append(rule)

    def say(self, text: str) -> None:
        """Something that is no check."""
        self._found[text] = None

    def end(self) -> list[str]:
        """What is to be said, in order, each thing once.

        Raises:
            MalformedImage: A check failed, and the Dockerfile says that this is an error.
        """
        found = list(self._found)
        if self._rules and self._directives.is_strict:
            raise MalformedImage(
                found[0],
                hint="`check=error=true` on top of the Dockerfile makes an error of it;"
                f" `check=skip={self._rules[0]};error=true` leaves it out",
            )
        return found
