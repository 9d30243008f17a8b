"""The one printer: data on standard output, everything else on standard error.

A command never prints. It calls :func:`show` once with its result, and :func:`note`,
:func:`detail`, :func:`warn` or :func:`step` on the way. Whether these are shown, and in color, is
decided once, in ``main``, by :func:`configure`.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloister.cli._progress import StageBars, StageLines
from cloister.errors import CloisterError

if TYPE_CHECKING:
    from cloister.build.progress import Progress


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How much is said, and how.

    Args:
        quiet: Only results, warnings and errors.
        verbose: Details too.
        color: ANSI colors on standard error.
        as_json: Errors are JSON objects too.
    """

    quiet: bool = False
    verbose: bool = False
    color: bool = False
    as_json: bool = False


@dataclasses.dataclass(slots=True)
class _Printer:
    """How this process prints, whatever thread does."""

    style: Style = dataclasses.field(default_factory=Style)


_printer = _Printer()


def configure(style: Style) -> None:
    """Sets how everything that follows is printed."""
    _printer.style = style


def show(data: Mapping[str, Any], *, as_json: bool = False, text: str | None = None) -> None:
    """Prints the result of a command on standard output.

    Args:
        data: The result: one object with stable keys.
        as_json: Print it as one line of JSON instead of text.
        text: What people see; without it, one ``key: value`` line for each key.
    """
    if as_json:
        line = json.dumps(data, ensure_ascii=False, default=_jsonable)
    elif text is not None:
        line = text
    else:
        line = "\n".join(_lines(data))
    print(line, flush=True)


def raw(data: bytes) -> None:
    """Prints the result of a command as it is, to the byte: nothing is added at its end."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def note(message: str) -> None:
    """Says on standard error what happens; silent under ``--quiet``."""
    if not _printer.style.quiet:
        _say(message)


def detail(message: str) -> None:
    """Says more, under ``--verbose`` only."""
    if _printer.style.verbose:
        _say(_paint(message, "2"))


def warn(message: str) -> None:
    """Says what may be wrong; ``--quiet`` does not silence it."""
    _say(f"{_paint('warning:', '33')} {message}")


def error(problem: CloisterError) -> None:
    """Prints an error and, apart from it, its hint: text, or a JSON object on standard output."""
    if _printer.style.as_json:
        body = {
            "code": type(problem).__name__,
            "message": problem.message,
            "hint": problem.hint,
        }
        print(json.dumps({"error": body}, ensure_ascii=False), flush=True)
        return
    _say(f"{_paint('error:', '31')} {problem.message}")
    if problem.hint:
        _say(f"{_paint('hint:', '36')} {problem.hint}")


@contextlib.contextmanager
def step(label: str) -> Iterator[None]:
    """Says on standard error that a step is done, and how long it took.

    One line a step, after it, on a terminal and elsewhere alike: a log stays readable, and
    ``--verbose`` also says when a step starts, so that one that hangs is seen.
    """
    detail(f"{label} …")
    started = time.monotonic()
    yield
    note(f"{label} ({time.monotonic() - started:.2f} s)")


def progress() -> "Progress":
    """Tells a build's stages: a bar with bytes and seconds on a terminal, a line a stage else."""
    style = _printer.style
    if style.quiet or not sys.stderr.isatty():
        return StageLines(note, detail)
    return StageBars(note, detail, has_color=style.color)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if _printer.style.color else text


def _lines(data: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, (list, tuple)):
            yield f"{indent}{key}: {', '.join(_scalar(item) for item in value)}"
        else:
            yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: Any) -> str:  # noqa: ANN401 - whatever a result holds
    if value is None:
        return "-"
    if value is True or value is False:
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _jsonable(value: Any) -> str:  # noqa: ANN401 - called by json for what it does not know
    return value.hex() if isinstance(value, bytes) else str(value)
