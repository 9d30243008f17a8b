"""The build context: the files a Dockerfile may copy, and nothing outside of that folder.

Every path is resolved with links followed by hand, so that none leads out. What would feed a build
on itself, or put a key into an image, is never copied, whatever the patterns say.
"""

import dataclasses
import os
import pathlib
import re
import stat
from collections.abc import Iterator

from cloister.build.dockerfile.glob import compiled
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.dockerfile.place import Place
from cloister.build.rootfs import MAX_LINKS, shown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file or folder of the context.

    Args:
        path: Where it is on this machine, links resolved.
        relative: Its path in the context, as it was named; empty: the context itself.
        status: Of the path, links not followed.
    """

    path: pathlib.Path
    relative: bytes
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)


class Context:
    """A folder whose files may be copied.

    Args:
        root: The folder.
        ignore: What of it is not there.
        private: Files and folders that are never copied: absolute paths.
    """

    def __init__(
        self, root: pathlib.Path, ignore: Ignore, private: frozenset[pathlib.Path]
    ) -> None:
        self._root = root.resolve()
        self._ignore = ignore
        self._private = frozenset(path.resolve() for path in private)
        self.left_out: set[str] = set()

    def matching(self, pattern: str, place: Place) -> list[Found]:
        """What a source of COPY names, sorted; a pattern may name several.

        Raises:
            MalformedImage: It leads out of the context, cannot be read, or nothing is there.
        """
        parts: list[str] = []
        for part in pattern.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not parts:
                    raise self._outside(pattern, place)
                parts.pop()
            else:
                parts.append(part)
        try:
            found = [self._found(names, pattern, place) for names in self._expand([], parts, place)]
        except OSError as problem:
            # Such as a name that no file system takes.
            raise place.error(f"`{pattern[:200]}` cannot be read: {problem.strerror}") from None
        present = [item for item in found if item is not None]
        if not present:
            raise place.error(
                f"`{pattern[:200]}` is not in the build context `{self._root}`",
                hint="the path is relative to the context; .dockerignore may leave it out",
            )
        return present

    def below(self, folder: Found, place: Place) -> Iterator[Found]:
        """What is in a folder, at any depth, a folder before what is in it; links not followed.

        Raises:
            MalformedImage: Something is no file, folder or link, or cannot be read.
        """
        try:
            names = sorted(os.fsencode(path.name) for path in folder.path.iterdir())
        except OSError as problem:
            raise place.error(f"`{folder.path}` cannot be read: {problem.strerror}") from problem
        for name in names:
            relative = b"/".join(filter(None, [folder.relative, name]))
            path = folder.path / os.fsdecode(name)
            entry = Found(path=path, relative=relative, status=path.lstat())
            is_out = self._is_out(entry)
            if entry.is_directory:
                inner = (
                    list(self.below(entry, place)) if self._may_enter(entry, is_out=is_out) else []
                )
                if not is_out or inner:
                    yield entry
                yield from inner
            elif not is_out:
                self._check_kind(entry, place)
                yield entry

    def _expand(self, done: list[str], parts: list[str], place: Place) -> Iterator[list[str]]:
        """Names for a path of which each part may be a pattern."""
        count = next((at for at, part in enumerate(parts) if _PATTERN.search(part)), len(parts))
        done = [*done, *parts[:count]]
        if count == len(parts):
            yield done
            return
        first, rest = parts[count], parts[count + 1 :]
        try:
            pattern = compiled(first, across=False)
        except ValueError as problem:
            raise place.error(str(problem)) from None
        folder = self._resolve(done, "/".join(done), place)
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            return
        for name in names:
            if pattern.fullmatch(name):
                yield from self._expand([*done, name], rest, place)

    def _found(self, names: list[str], pattern: str, place: Place) -> Found | None:
        path = self._resolve(names, pattern, place)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        entry = Found(path=path, relative=os.fsencode("/".join(names)), status=status)
        if names and self._is_out(entry):
            is_entered = entry.is_directory and self._may_enter(entry, is_out=True)
            if not is_entered:
                return None
        if not entry.is_directory:
            self._check_kind(entry, place)
        return entry

    def _resolve(self, names: list[str], shown_as: str, place: Place) -> pathlib.Path:
        """The path of the names, every link on it followed, inside the context."""
        todo = names[::-1]
        at = self._root
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if at == self._root:
                    raise self._outside(shown_as, place)
                at = at.parent
                continue
            step = at / part
            if not step.is_symlink():
                at = step
                continue
            links += 1
            target = os.readlink(step)  # noqa: PTH115 - the text of the link, not a path
            if links > MAX_LINKS or target.startswith("/"):
                raise self._outside(shown_as, place)
            todo.extend(target.split("/")[::-1])
        return at

    def _is_out(self, entry: Found) -> bool:
        if self._is_private(entry):
            self.left_out.add(shown(entry.relative))
            return True
        name = os.fsdecode(entry.relative)
        return self._ignore.leaves_out(name)

    def _is_private(self, entry: Found) -> bool:
        return any(entry.path == path or path in entry.path.parents for path in self._private)

    def _may_enter(self, entry: Found, *, is_out: bool) -> bool:
        """Whether something in a folder may be there, though the folder itself may not."""
        return not self._is_private(entry) and (not is_out or self._ignore.may_take_back)

    def _check_kind(self, entry: Found, place: Place) -> None:
        mode = entry.status.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise place.error(
                f"`{shown(entry.relative)}` is a device node, pipe or socket, which an image may"
                " not have",
                hint="name it in .dockerignore",
            )

    def _outside(self, pattern: str, place: Place) -> Exception:
        return place.error(
            f"`{pattern[:200]}` leads out of the build context `{self._root}`",
            hint="copy what is needed into the context; links may only lead to files inside it",
        )


_PATTERN = re.compile(r"[*?\[\\]")
"""What makes a part of a path a pattern."""
