"""Commands by name, imported when they are called.

``cloister --help`` lists every command without importing one; a command's module, and what it
imports, is loaded when that command is parsed. A command is a plain function with typer's
annotations; its docstring is its help, and a line ``Example:`` in it starts the block that is
printed as it stands.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One command: where it is, and the line the list of commands shows.

    Args:
        module: Module that holds the function.
        function: Name of the function.
        summary: One line for the list of commands.
    """

    module: str
    function: str
    summary: str


class LazyCommand(TyperCommand):
    """Stands in the list for a command that is imported when its arguments are parsed."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.summary, short_help=entry.summary, rich_markup_mode=None)
        self._entry = entry

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401 - typer's own types here are private
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Imports the command and lets it parse its arguments."""
        return self._load().make_context(info_name, args, parent=parent, **extra)

    def _load(self) -> TyperCommand:
        module = importlib.import_module(self._entry.module)
        function: Callable[..., Any] = getattr(module, self._entry.function)
        text, marker, example = (function.__doc__ or "").partition("Example:")
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(
            self.name,
            help=text.strip(),
            epilog=_as_it_stands(marker + example) if marker else None,
        )(function)
        command = typer.main.get_command(app)
        if not isinstance(command, TyperCommand):
            raise TypeError(f"{self._entry.module}.{self._entry.function} is not one command")
        return command


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Commands below a command.

    Args:
        summary: One line.
        entries: Its commands by name.
        example: A command line.
    """

    summary: str
    entries: "Mapping[str, Entry | Group]"
    example: str


def group(
    name: str, summary: str, entries: "Mapping[str, Entry | Group]", *, example: str
) -> TyperGroup:
    """A command with commands of its own.

    Args:
        name: Its name.
        summary: One line.
        entries: Its commands by name.
        example: A command line.
    """
    return TyperGroup(
        name=name,
        help=summary,
        epilog=f"\b\nExample:\n  {example}",
        short_help=summary,
        commands={key: _made(key, entry) for key, entry in entries.items()},
        no_args_is_help=True,
        rich_markup_mode=None,
    )


def _made(name: str, entry: Entry | Group) -> TyperCommand | TyperGroup:
    if isinstance(entry, Group):
        return group(name, entry.summary, entry.entries, example=entry.example)
    return LazyCommand(name, entry)


def _as_it_stands(block: str) -> str:
    """Keeps the line breaks of an example: a line of one backspace says so to the help writer."""
    lines = [line.removeprefix("    ") for line in block.rstrip().splitlines()]
    return "\b\n" + "\n".join(line for line in lines if line.strip())
