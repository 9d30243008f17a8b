"""Which builder: the one that was named, else the first that works.

A Dockerfile that needs no container is built natively: nothing has to be installed, and the result
depends on nothing but the files. Everything else goes to the first of docker, buildah and podman
that works.
"""

from collections.abc import Callable, Sequence

from cloister.build.builders.buildah import Buildah, Podman
from cloister.build.builders.docker import Docker
from cloister.build.builders.native import Native
from cloister.build.builders.protocol import Builder
from cloister.errors import BuilderUnusable, UsageError

AUTO = "auto"
NAMES = (AUTO, "docker", "buildah", "podman", "native")
"""What ``--builder`` takes."""


def choose(
    wanted: str,
    container_reason: str | None,
    tell: Callable[[str], None],
    known: Sequence[Builder] | None = None,
) -> Builder:
    """The builder to use.

    Args:
        wanted: One of :data:`NAMES`.
        container_reason: From :func:`~cloister.build.dockerfile.needs_container`.
        tell: Told which was taken, and why not those before it; only for ``auto``.
        known: All builders, in order of preference; default: those of this package.

    Raises:
        UsageError: There is no builder of this name.
        BuilderUnusable: The one that was named does not work here, or none does; each with its
            reason.
    """
    builders = {builder.name: builder for builder in (all_builders() if known is None else known)}
    if wanted != AUTO:
        if wanted not in builders:
            raise UsageError(
                f"there is no builder {wanted!r}", hint=f"one of {', '.join([AUTO, *builders])}"
            )
        problem = builders[wanted].unusable()
        if problem is not None:
            raise BuilderUnusable(
                f"the builder {wanted} does not work here: {problem.reason}", hint=problem.fix
            )
        return builders[wanted]
    if container_reason is None and "native" in builders:
        tell("builder: native (the Dockerfile needs no container)")
        return builders["native"]
    passed: list[str] = []
    fixes: list[str] = []
    for builder in builders.values():
        if isinstance(builder, Native):
            continue
        problem = builder.unusable()
        if problem is None:
            tell(f"builder: {builder.name}{_because(passed)}")
            return builder
        passed.append(f"{builder.name}: {problem.reason}")
        fixes.append(problem.fix)
    raise BuilderUnusable(
        f"no builder works here for this Dockerfile, which needs one that runs containers"
        f" ({container_reason}){_because(passed)}",
        hint=fixes[0] if fixes else None,
    )


def all_builders() -> tuple[Builder, ...]:
    """Every builder, in the order in which ``auto`` looks at them."""
    return (Docker(), Buildah(), Podman(), Native())


def _because(passed: list[str]) -> str:
    return f" ({'; '.join(passed)})" if passed else ""
