"""Words of a systemd unit, written so that systemd reads them as they are.

A path may hold what a unit gives a meaning to: spaces and quotes part words and join them
(systemd.syntax(7), "Quoting"), ``%`` begins a specifier (systemd.unit(5), "Specifiers"), ``$`` a
variable in the arguments of a command (systemd.service(5), "Command lines"). What a setting means
is the unit's own matter.
"""

import pathlib
import re
import shutil
import sys
from collections.abc import Sequence

from cloister.errors import UsageError


def quoted(word: str) -> str:
    """One word of a setting that takes a list of them, as ``ReadWritePaths=`` does.

    Not for ``ExecStart=`` and its like: :func:`command_line`.

    Args:
        word: Any text without control characters. Escapes for those are known to commands alone.

    Raises:
        UsageError: It has a control character, or is not UTF-8.
    """
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{word!a} cannot be in a unit of systemd: it is not UTF-8") from None
    if CONTROL.search(word):
        raise UsageError(f"{word!a} cannot be in a unit of systemd: it has a control character")
    text = word.replace("%", "%%")
    if PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def command_line(words: Sequence[str]) -> str:
    """The value of ``ExecStart=`` for a program and its arguments.

    Args:
        words: The program, an absolute path, and what it is given.

    Raises:
        UsageError: The program is no absolute path, or systemd runs none of this name: it has a
            quote or a backslash; a word has a control character, or is not UTF-8.
    """
    program, *arguments = words
    if not program.startswith("/") or NOT_IN_PROGRAM.search(program):
        raise UsageError(
            f"systemd does not run {program!a}: a program has an absolute path without quotes and"
            " backslashes"
        )
    # Variables are looked for in the arguments alone.
    written = (quoted(one).replace("$", "$$") for one in arguments)
    return " ".join([quoted(program), *written])


def own_command(words: Sequence[str]) -> str:
    """The value of ``ExecStart=`` for a command of this installation.

    Args:
        words: What stands behind ``cloister``.

    Raises:
        UsageError: As :func:`command_line`.
    """
    program = shutil.which(sys.argv[0]) or shutil.which("cloister") or "/usr/local/bin/cloister"
    return command_line([str(pathlib.Path(program).absolute()), *words])


PLAIN = re.compile(r"[A-Za-z0-9_@%:,./+=$-]+")  # `;` alone would begin another command
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NOT_IN_PROGRAM = re.compile(r"[\"'\\]")
