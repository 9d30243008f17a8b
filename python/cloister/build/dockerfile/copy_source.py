"""Where COPY takes files from: the build context, the files of another stage, or a heredoc.

Each gives entries with the node that they would be in an image; what the instruction says about
owner and mode is put on top by :mod:`~cloister.build.dockerfile.copy`.
"""

import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from cloister.build.context_mode import context_mode
from cloister.build.dockerfile.context import Context, Found
from cloister.build.dockerfile.glob import compiled
from cloister.build.dockerfile.place import Place
from cloister.build.rootfs import Bytes, Directory, File, FileBytes, Node, Symlink, Tree


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """An entry that is copied.

    Args:
        relative: Its path in what it is taken from; empty: all of it.
        node: What it is.
        found: The file of the context, if it comes from there.
    """

    relative: bytes
    node: Node
    found: Found | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a folder."""
        return isinstance(self.node, Directory)


class CopySource(Protocol):
    """Something that files can be taken from."""

    def matching(self, pattern: str, place: Place) -> list[Picked]:
        """What a path or pattern names, sorted.

        Raises:
            MalformedImage: Nothing is there, or it leads out.
        """

    def below(self, folder: Picked, place: Place) -> Iterator[Picked]:
        """What is in a folder, at any depth, a folder before what is in it."""


class ContextSource:
    """The build context."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def matching(self, pattern: str, place: Place) -> list[Picked]:
        """What a path or pattern names."""
        return [_picked(found) for found in self._context.matching(pattern, place)]

    def below(self, folder: Picked, place: Place) -> Iterator[Picked]:
        """What is in a folder."""
        if folder.found is not None:
            for found in self._context.below(folder.found, place):
                yield _picked(found)


class TreeSource:
    """The files of another stage, or of an image.

    Args:
        tree: The files.
        name: How messages call it.
    """

    def __init__(self, tree: Tree, name: str) -> None:
        self._tree = tree
        self._name = name

    def matching(self, pattern: str, place: Place) -> list[Picked]:
        """What a path or pattern names, from the root of that image; links are followed there."""
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        found = []
        for path in self._expand(b"", parts, place):
            node = self._tree.node(self._tree.resolve(path))
            if node is not None:
                found.append(Picked(relative=self._tree.resolve(path), node=node))
        if not found:
            raise place.error(f"`{pattern[:200]}` is not in {self._name}")
        return found

    def below(self, folder: Picked, place: Place) -> Iterator[Picked]:  # noqa: ARG002 - as the others
        """What is in a folder."""
        todo = [folder]
        while todo:
            at = todo.pop()
            if at is not folder:
                yield at
            if isinstance(at.node, Directory):
                inner = [
                    Picked(relative=b"/".join(filter(None, [at.relative, name])), node=node)
                    for name, node in sorted(at.node.children.items())
                ]
                todo.extend(reversed(inner))

    def _expand(self, done: bytes, parts: list[str], place: Place) -> list[bytes]:
        for index, part in enumerate(parts):
            if any(char in part for char in "*?[\\"):
                try:
                    pattern = compiled(part, across=False)
                except ValueError as problem:
                    raise place.error(str(problem)) from None
                folder = self._tree.node(self._tree.resolve(done))
                names = sorted(folder.children) if isinstance(folder, Directory) else []
                return [
                    path
                    for name in names
                    if pattern.fullmatch(os.fsdecode(name))
                    for path in self._expand(_joined(done, name), parts[index + 1 :], place)
                ]
            done = _joined(done, os.fsencode(part))
        return [done]


class TextSource:
    """Documents inside the Dockerfile.

    Args:
        texts: By the name that ends each.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def matching(self, pattern: str, place: Place) -> list[Picked]:  # noqa: ARG002 - as the others
        """The document of a name."""
        content = Bytes(os.fsencode(self._texts[pattern]))
        return [Picked(relative=os.fsencode(pattern), node=File(mode=0o644, content=content))]

    def below(self, folder: Picked, place: Place) -> Iterator[Picked]:  # noqa: ARG002 - as the others
        """Nothing: a document is no folder."""
        yield from ()


def _picked(found: Found) -> Picked:
    mode = context_mode(found.status.st_mode)
    node: Node
    if found.is_directory:
        node = Directory(mode=mode)
    elif stat.S_ISLNK(found.status.st_mode):
        target = os.readlink(os.fsencode(found.path))  # noqa: PTH115 - bytes as they are
        node = Symlink(mode=0o777, target=target)
    else:
        node = File(mode=mode, content=FileBytes(found.path, found.status.st_size))
    return Picked(relative=found.relative, node=node, found=found)


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
