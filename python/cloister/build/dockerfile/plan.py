"""Stages of a Dockerfile: which there are, what they are called, which the target needs."""

import dataclasses
import re

from cloister.build.dockerfile.parse import Instruction, Parsed
from cloister.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage, before it is run.

    Args:
        index: Its number, from 0.
        name: What AS calls it, lower case; empty: nothing does.
        start: Its FROM.
        instructions: Those after it.
    """

    index: int
    name: str
    start: Instruction
    instructions: tuple[Instruction, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A Dockerfile, cut at its FROMs.

    Args:
        arguments: ARG before the first FROM.
        stages: In order.
    """

    arguments: tuple[Instruction, ...]
    stages: tuple[StagePlan, ...]

    def base(self, name: str, *, before: int) -> StagePlan | None:
        """The stage that FROM names, which stands before its own; the last of that name.

        A number is none: FROM takes names alone.
        """
        for stage in reversed(self.stages[:before]):
            if stage.name == name.lower():
                return stage
        return None

    def find(self, name: str, *, before: int) -> StagePlan | None:
        """A stage by its name, else by its number, that stands before another."""
        found = self.base(name, before=before)
        if found is None and name.isascii() and name.isdecimal() and int(name) < before:
            found = self.stages[int(name)]
        return found

    def target(self, wanted: str | None) -> StagePlan:
        """The stage that is wanted; ``None``: the last.

        Raises:
            UsageError: There is none of that name or number.
        """
        if wanted is None:
            return self.stages[-1]
        found = self.find(wanted, before=len(self.stages))
        if found is None:
            names = ", ".join(stage.name or str(stage.index) for stage in self.stages)
            raise UsageError(
                f"--target: there is no stage {wanted[:60]!r}", hint=f"it has: {names}"
            )
        return found


def plan(parsed: Parsed) -> Plan:
    """Cuts a Dockerfile into stages.

    Raises:
        MalformedImage: With the line: an instruction before FROM, a FROM of another form, a name
            that is none.
    """
    arguments: list[Instruction] = []
    starts: list[tuple[Instruction, list[Instruction]]] = []
    for item in parsed.instructions:
        if item.name == "FROM":
            starts.append((item, []))
        elif starts:
            starts[-1][1].append(item)
        elif item.name == "ARG":
            arguments.append(item)
        else:
            raise item.place.error(f"{item.name} stands before FROM")
    return Plan(
        arguments=tuple(arguments),
        stages=tuple(
            StagePlan(index=index, name=_name(start), start=start, instructions=tuple(inner))
            for index, (start, inner) in enumerate(starts)
        ),
    )


def _name(start: Instruction) -> str:
    named = start.words[1:]
    if not named:
        return ""
    if len(named) == 1 or named[0].upper() != "AS":
        raise start.place.error(f"expected FROM image AS name, found {start.text[:80]!r}")
    name = named[1].lower()
    if not re.fullmatch(r"[a-z][a-z0-9._-]*", name) or name == "scratch":
        raise start.place.error(f"{named[1][:60]!r} is not a name for a stage")
    return name
