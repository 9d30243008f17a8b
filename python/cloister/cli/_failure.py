"""How a command ends that could not do its work: a message, and an exit status of its own.

A traceback is shown when it is asked for, and nowhere else.
"""

import codecs
import contextlib
import json
import os
import pathlib
import sys
import traceback

from cloister.cli import output
from cloister.errors import CloisterError, InternalError, SystemFailure


def failed(problem: Exception, *, is_verbose: bool) -> int:
    """Tells of any exception and returns the exit status that goes with it."""
    if isinstance(problem, CloisterError):
        return told(problem)
    if isinstance(problem, BrokenPipeError):
        return closed_pipe()
    if is_verbose:
        traceback.print_exc()
    if isinstance(problem, OSError):
        about = f"`{problem.filename}`: " if isinstance(problem.filename, str) else ""
        return told(SystemFailure(f"{about}{problem.strerror or problem}"))
    frames = traceback.extract_tb(problem.__traceback__)
    at = f" at {pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return told(
        InternalError(
            f"internal error{at}: {type(problem).__name__}: {problem}",
            hint="this is a mistake of cloister: please report what the same command says with"
            " --verbose",
        )
    )


def told(problem: CloisterError) -> int:
    """Prints an error and returns its exit status."""
    try:
        output.error(problem)
        sys.stdout.flush()
    except OSError:
        # With --json an error goes to standard output, which may be what is broken.
        abandon_output()
        sys.stderr.write(f"error: {problem.message}\n")
    return problem.exit_status


def closed_pipe() -> int:
    """Whoever read the output has enough; the exit status is what a shell reports."""
    abandon_output()
    return PIPE_CLOSED


def abandon_output() -> None:
    """Standard output leads nowhere from here on; at its end the interpreter would try it again."""
    # A stream of a test is none of the system's.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def escape_what_is_lacking() -> None:
    """Characters that a terminal or a pipe has no code for are written as JSON escapes them."""
    codecs.register_error("cloister", _escaped)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="cloister")  # type: ignore[union-attr]


def _escaped(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return json.dumps(problem.object[problem.start : problem.end])[1:-1], problem.end


PIPE_CLOSED = 141
"""128 + SIGPIPE."""
