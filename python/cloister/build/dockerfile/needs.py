"""What a Dockerfile needs: which of its stages, and whether something that runs containers."""

import re
from collections.abc import Iterator, Mapping

from cloister.build.dockerfile.arguments import Arguments
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.parse import Instruction, parse
from cloister.build.dockerfile.plan import Plan, StagePlan, plan
from cloister.errors import MalformedImage, UsageError


def needed(
    planned: Plan, target: StagePlan, values: Mapping[str, str], escape: str
) -> list[StagePlan]:
    """The stages that a stage needs, itself included, in their order; others are not run.

    Args:
        planned: The Dockerfile.
        target: The stage.
        values: Variables that FROM sees.
        escape: The escape character.

    Raises:
        MalformedImage: With the line: a FROM that cannot be expanded.
    """
    found: dict[int, StagePlan] = {}
    todo = [target]
    while todo:
        stage = todo.pop()
        if stage.index in found:
            continue
        found[stage.index] = stage
        base = expand(stage.start.words[0], values, escape, stage.start.place)
        earlier = [planned.base(base, before=stage.index)]
        earlier += [
            planned.find(item.flags["from"], before=stage.index)
            for item in stage.instructions
            if "from" in item.flags
        ]
        todo += [one for one in earlier if one is not None]
    return [found[index] for index in sorted(found)]


def needs_container(
    text: str,
    file: str,
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
) -> str | None:
    """Why a Dockerfile cannot be built natively: its first line that needs more; ``None``: it can.

    Args:
        text: The Dockerfile.
        file: Its name, for the reason.
        target: The stage that is wanted; ``None``: the last.
        build_args: Values for ARG.
    """
    try:
        parsed = parse(text, file)
        planned = plan(parsed)
        escape = parsed.directives.escape
        values = Arguments(planned, build_args or {}, "amd64", escape).values
        stages = needed(planned, planned.target(target), values, escape)
        for stage in stages:
            for item, what in _demands(stage, planned, values, escape):
                return f"{item.place.file}:{item.place.line}: {what}"
    except (MalformedImage, UsageError) as problem:
        return problem.message
    return None


def _demands(
    stage: StagePlan, planned: Plan, values: Mapping[str, str], escape: str
) -> Iterator[tuple[Instruction, str]]:
    """The lines of a stage that this program cannot do."""
    base = expand(stage.start.words[0], values, escape, stage.start.place)
    if (
        base.lower() != "scratch"
        and not is_local(base)
        and planned.base(base, before=stage.index) is None
    ):
        yield stage.start, f"FROM {base[:80]}"
    for item in stage.instructions:
        source = item.flags.get("from")
        if item.name == "RUN":
            yield item, "RUN"
        elif (
            source is not None
            and not is_local(source)
            and planned.find(source, before=stage.index) is None
        ):
            yield item, f"{item.name} --from={source[:80]}"
        elif item.name == "ADD" and any(is_remote(word) for word in item.words[:-1]):
            yield item, "ADD of a remote file"


def is_local(image: str) -> bool:
    """Whether FROM names a saved image of this machine (containers-transports(5))."""
    transport, colon, _ = image.partition(":")
    return bool(colon) and transport in _TRANSPORTS


def is_remote(source: str) -> bool:
    """Whether a source of ADD is fetched from elsewhere (Dockerfile reference, ADD)."""
    return _REMOTE.match(source) is not None


_TRANSPORTS = {"docker-archive", "oci", "oci-archive"}
_REMOTE = re.compile(r"https?://|git@|git://|ssh://", re.IGNORECASE)
