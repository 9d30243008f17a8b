"""Instructions of a Dockerfile in their form: flags, words, exec or shell form.

Nothing is expanded here: variables depend on what came before, which :mod:`run` knows.
"""

import dataclasses

from cloister.build.dockerfile import words
from cloister.build.dockerfile.directives import Directives
from cloister.build.dockerfile.heredoc import Heredoc
from cloister.build.dockerfile.lex import Line, lex, lex_one
from cloister.build.dockerfile.place import NEEDS_CONTAINER, Place


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction.

    Args:
        place: Its line.
        name: Its name, upper case.
        flags: ``--name=value``; the value of one without is empty.
        words: What follows, in words as written; the one text of a shell form.
        is_exec: In exec form: a JSON list, whose texts are taken as they are.
        text: What follows, whole.
        heredocs: Documents that it announces, in order.
        has_gap: An empty line is inside of it.
    """

    place: Place
    name: str
    flags: dict[str, str]
    words: tuple[str, ...]
    is_exec: bool
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    has_gap: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A whole Dockerfile.

    Args:
        directives: What its first lines set.
        instructions: In order.
    """

    directives: Directives
    instructions: tuple[Instruction, ...]


def parse(text: str, file: str) -> Parsed:
    """Reads the text of a Dockerfile.

    Args:
        text: The text.
        file: Its name, for messages.

    Raises:
        MalformedImage: With the line: an unknown instruction or flag, missing words, no FROM.
    """
    lexed = lex(text, file)
    escape = lexed.directives.escape
    instructions = tuple(_instruction(line, escape) for line in lexed.lines)
    if not any(item.name == "FROM" for item in instructions):
        last = lexed.lines[-1].place if lexed.lines else Place(file, 1)
        raise last.error("there is no FROM", hint="add `FROM scratch` as the first instruction")
    return Parsed(directives=lexed.directives, instructions=instructions)


def parse_trigger(text: str, place: Place, escape: str) -> Instruction:
    """The instruction that an ONBUILD holds.

    Args:
        text: What follows ONBUILD, with its documents.
        place: Where it is run.
        escape: The escape character.

    Raises:
        MalformedImage: It is none, or one that cannot be held.
    """
    item = _instruction(lex_one(text, place, escape), escape)
    if item.name in _NO_TRIGGERS:
        raise place.error(f"ONBUILD cannot hold {item.name}")
    return item


def pairs(item: Instruction) -> list[tuple[str, str]]:
    """Name and value, as written, of ENV and LABEL; the older ``ENV name value`` too.

    Raises:
        MalformedImage: A word without ``=`` among others.
    """
    if "=" not in item.words[0]:
        name, _, value = item.text.partition(" ")
        if not value.strip():
            raise item.place.error(f"{item.name} {name} has no value", hint=f"{item.name} {name}=…")
        return [(name, value.strip())]
    found = []
    for word in item.words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise item.place.error(f"{item.name}: expected name=value, found {word[:60]!r}")
        found.append((name, value))
    return found


def _instruction(line: Line, escape: str) -> Instruction:
    place = line.place
    if line.name not in _KNOWN:
        raise place.error(f"there is no instruction {line.name[:40]}")
    flags, text = _flags(line)
    exec_form = words.json_list(text, place) if line.name in _EXEC else None
    if exec_form is not None:
        found = tuple(exec_form)
    elif line.name in _SHELL_FORM:
        found = (text,) if text else ()
    else:
        found = tuple(words.split(text, escape))
    fewest, most = _KNOWN[line.name]
    # An empty list is a list: `CMD []` takes the command away.
    if len(found) < fewest and not (exec_form is not None and line.name in _SHELL_FORM):
        raise place.error(f"{line.name} lacks {_what_lacks(line.name)}")
    if most is not None and len(found) > most:
        raise place.error(f"{line.name} takes {most} word{'s' if most > 1 else ''} at most")
    return Instruction(
        place=place,
        name=line.name,
        flags=flags,
        words=found,
        is_exec=exec_form is not None,
        text=text,
        heredocs=line.heredocs,
        has_gap=line.has_gap,
    )


def _flags(line: Line) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    text = line.rest
    while text.startswith("--"):
        word, _, text = text.partition(" ")
        text = text.lstrip()
        name, _, value = word[2:].partition("=")
        if line.name == "RUN":
            continue
        if name in _LATER.get(line.name, ()):
            raise line.place.error(
                f"{line.name} --{name} is not supported by the native builder", hint=NEEDS_CONTAINER
            )
        if name not in _FLAGS.get(line.name, ()):
            raise line.place.error(f"{line.name} has no flag --{name[:40]}")
        if name in flags:
            raise line.place.error(f"{line.name} --{name} is there twice")
        flags[name] = value
    return flags, text


def _what_lacks(name: str) -> str:
    return {"COPY": "a source and a destination", "ADD": "a source and a destination"}.get(
        name, "what to set"
    )


_KNOWN: dict[str, tuple[int, int | None]] = {
    "ADD": (2, None),
    "ARG": (1, None),
    "CMD": (1, None),
    "COPY": (2, None),
    "ENTRYPOINT": (1, None),
    "ENV": (1, None),
    "EXPOSE": (1, None),
    "FROM": (1, 3),
    "HEALTHCHECK": (1, None),
    "LABEL": (1, None),
    "MAINTAINER": (1, None),
    "ONBUILD": (1, None),
    "RUN": (0, None),
    "SHELL": (1, None),
    "STOPSIGNAL": (1, 1),
    "USER": (1, 1),
    "VOLUME": (1, None),
    "WORKDIR": (1, 1),
}
"""Fewest and most words of each instruction."""
_EXEC = {"ADD", "CMD", "COPY", "ENTRYPOINT", "SHELL", "VOLUME"}
_SHELL_FORM = {"CMD", "ENTRYPOINT", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "RUN"}
_FLAGS = {
    "ADD": {"chmod", "chown", "link"},
    "COPY": {"chmod", "chown", "from", "link"},
    "FROM": {"platform"},
    "HEALTHCHECK": {"interval", "retries", "start-interval", "start-period", "timeout"},
}
_NO_TRIGGERS = {"FROM", "MAINTAINER", "ONBUILD"}
"""Dockerfile reference, ONBUILD limitations."""
_LATER = {
    "ADD": {"checksum", "exclude", "keep-git-dir", "unpack"},
    "COPY": {"exclude", "parents"},
}
