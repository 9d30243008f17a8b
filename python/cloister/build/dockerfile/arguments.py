"""Build arguments: those that are set without being asked for, and ARG before the first FROM."""

from collections.abc import Mapping

from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.plan import Plan
from cloister.build.dockerfile.values import check_name


class Arguments:
    """Values that FROM sees, and that an ARG without a value takes.

    Args:
        plan: The Dockerfile.
        given: Values of ``--build-arg``.
        architecture: As Docker names it.
        escape: The escape character.

    Raises:
        MalformedImage: With the line: an ARG that is no name, or whose value cannot be expanded.
    """

    def __init__(
        self, plan: Plan, given: Mapping[str, str], architecture: str, escape: str
    ) -> None:
        self.given = given
        self.used: set[str] = set()
        # Dockerfile reference, Automatic platform ARGs in the global scope.
        self.values = {
            f"{where}{what}": value
            for where in ("BUILD", "TARGET")
            for what, value in (
                ("PLATFORM", f"linux/{architecture}"),
                ("OS", "linux"),
                ("ARCH", architecture),
                ("VARIANT", ""),
            )
        }
        for item in plan.arguments:
            for word in item.words:
                name, equals, default = word.partition("=")
                check_name(name, item)
                value = self.of(name)
                if value is None and equals:
                    value = expand(default, self.values, escape, item.place)
                if value is not None:
                    self.values[name] = value

    def of(self, name: str) -> str | None:
        """The value that was given for an ARG, which has then been taken; ``None``: none was."""
        if name in self.given:
            self.used.add(name)
        return self.given.get(name)

    @property
    def unused(self) -> list[str]:
        """Names that no ARG took, less those that need none."""
        return sorted(
            name
            for name in set(self.given) - self.used
            if name.upper() not in _PREDEFINED and not name.startswith("BUILDKIT_")
        )


_PREDEFINED = {
    "ALL_PROXY",
    "FTP_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SOURCE_DATE_EPOCH",
}
"""Dockerfile reference, Predefined ARGs and BuildKit built-in build args."""
