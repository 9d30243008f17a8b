"""Runs one stage of a Dockerfile: files are copied, settings kept, in the order of its lines.

What needs a running container is refused, by line. Which stage is run, and from what it starts, is
:mod:`~cloister.build.dockerfile.run`'s business.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile import warnings, words
from cloister.build.dockerfile.arguments import Arguments
from cloister.build.dockerfile.copy import Copy, copy
from cloister.build.dockerfile.copy_source import CopySource, TextSource
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.heredoc import one as heredoc_in
from cloister.build.dockerfile.needs import is_remote
from cloister.build.dockerfile.owner import owner
from cloister.build.dockerfile.parse import Instruction, pairs, parse_trigger
from cloister.build.dockerfile.place import NEEDS_CONTAINER
from cloister.build.dockerfile.values import check_name, healthcheck
from cloister.build.image_config import signal_number
from cloister.build.rootfs import Directory
from cloister.errors import MalformedImage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all stages share.

    Args:
        escape: The escape character.
        arguments: Values for ARG.
        warnings: What the user should know.
        scratch: Where archives are decompressed.
        source: Where a COPY takes its files from.
    """

    escape: str
    arguments: Arguments
    warnings: warnings.Warnings
    scratch: pathlib.Path
    source: Callable[[Instruction], CopySource]


class Stage:
    """A stage that is run.

    Args:
        world: What all stages share.
        image: What it starts from; it is changed.
        parent: The stage that it starts from; its arguments are seen here too.
    """

    def __init__(self, world: World, image: BuiltImage, parent: "Stage | None" = None) -> None:
        self.image = image
        self._world = world
        # Variables in sight. Of ENV and ARG of one name the later line wins, as in BuildKit; the
        # reference says ENV.
        inherited: dict[str, str] = {} if parent is None else parent.values
        self.values: dict[str, str] = inherited | image.config.env
        # ARG without a value.
        self.unset: set[str] = set() if parent is None else set(parent.unset)
        self._seen: set[str] = set()

    def run(self, instructions: tuple[Instruction, ...]) -> None:
        """Runs instructions.

        Raises:
            MalformedImage: With the line: what is wrong, or needs another builder.
        """
        steps = self._steps()
        for item in instructions:
            self._check(item)
            steps[item.name](item)
            self._seen.add(item.name)

    def _check(self, item: Instruction) -> None:
        check = self._world.warnings.check
        if item.has_gap:
            check(
                warnings.NO_EMPTY_CONTINUATION, item.place, "an empty line is inside an instruction"
            )
        if item.name in ("CMD", "ENTRYPOINT", "HEALTHCHECK") and item.name in self._seen:
            check(
                warnings.MULTIPLE,
                item.place,
                f"a second {item.name} in a stage: the first one means nothing",
            )

    def _steps(self) -> dict[str, Callable[[Instruction], None]]:
        return {
            "ADD": self._copy,
            "ARG": self._arg,
            "CMD": self._cmd,
            "COPY": self._copy,
            "ENTRYPOINT": self._entrypoint,
            "ENV": self._env,
            "EXPOSE": self._expose,
            "HEALTHCHECK": self._healthcheck,
            "LABEL": self._label,
            "MAINTAINER": self._maintainer,
            "ONBUILD": self._on_build,
            "RUN": self._refuse_run,
            "SHELL": self._set_shell,
            "STOPSIGNAL": self._stop_signal,
            "USER": self._user,
            "VOLUME": self._volume,
            "WORKDIR": self._workdir,
        }

    def _expanded(self, item: Instruction, word: str, *, keeps_quotes: bool = False) -> str:
        undefined: set[str] = set()
        text = expand(
            word,
            self.values,
            self._world.escape,
            item.place,
            keeps_quotes=keeps_quotes,
            undefined=undefined,
        )
        for name in sorted(undefined - self.unset):
            self._world.warnings.check(
                warnings.UNDEFINED_VARIABLE, item.place, f"`${name[:60]}` is not set"
            )
        return text

    def _arg(self, item: Instruction) -> None:
        for word in item.words:
            name, equals, default = word.partition("=")
            check_name(name, item)
            value = self._world.arguments.of(name)
            if value is None:
                value = (
                    self._expanded(item, default)
                    if equals
                    else self._world.arguments.values.get(name)
                )
            if value is None:
                self.unset.add(name)
            else:
                self.values[name] = value

    def _env(self, item: Instruction) -> None:
        self._check_pairs(item)
        # All values of one ENV see the variables as they were before it.
        made = {
            self._expanded(item, name): self._expanded(item, value) for name, value in pairs(item)
        }
        for name, value in made.items():
            if not name or "\0" in value:
                raise item.place.error(f"ENV {name[:40]!r} is not a variable")
        self.image.config.env |= made
        self.values |= made

    def _check_pairs(self, item: Instruction) -> None:
        if "=" not in item.words[0]:
            self._world.warnings.check(
                warnings.LEGACY_PAIR,
                item.place,
                f"{item.name} without `=` takes the whole line as one value:"
                f" {item.name} {item.words[0][:60]}=… is clearer",
            )

    def _label(self, item: Instruction) -> None:
        self._check_pairs(item)
        self.image.config.labels |= {
            self._expanded(item, name): self._expanded(item, value) for name, value in pairs(item)
        }

    def _workdir(self, item: Instruction) -> None:
        path = self._expanded(item, item.words[0])
        if not path:
            raise item.place.error("WORKDIR is empty")
        self.image.config.cwd = _absolute(self.image.config.cwd, path)
        self._make_cwd(item)

    def _volume(self, item: Instruction) -> None:
        for word in item.words:
            path = word if item.is_exec else self._expanded(item, word)
            if not path:
                raise item.place.error("VOLUME is empty")
            # Docker makes the folder when a container starts, not in the image; so does init.
            if path not in self.image.config.volumes:
                self.image.config.volumes.append(path)

    def _make_cwd(self, item: Instruction) -> None:
        """What of it is not there is the USER's, as BuildKit makes it."""
        tree, config = self.image.tree, self.image.config
        try:
            path = tree.resolve(os.fsencode(config.cwd))
            is_there = isinstance(tree.node(path), Directory)
            uid, gid = owner(tree, config.user, "USER") if config.user and not is_there else (0, 0)
            tree.make_directories(path, uid=uid, gid=gid)
        except MalformedImage as problem:
            raise item.place.wrap(problem) from None

    def _user(self, item: Instruction) -> None:
        self.image.config.user = self._expanded(item, item.words[0])

    def _expose(self, item: Instruction) -> None:
        for word in item.words:
            text = self._expanded(item, word)
            found = re.fullmatch(
                r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", text, re.IGNORECASE
            )
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not found or not 1 <= first <= last <= MAX_PORT:
                raise item.place.error(f"EXPOSE {text[:40]!r}: expected a port, as in 8080/tcp")
            protocol = (found[3] or "tcp").lower()
            for port in range(first, last + 1):
                if (port, protocol) not in self.image.config.exposed:
                    self.image.config.exposed.append((port, protocol))

    def _stop_signal(self, item: Instruction) -> None:
        name = self._expanded(item, item.words[0])
        try:
            signal_number(name)
        except MalformedImage as problem:
            raise item.place.error(f"STOPSIGNAL: {problem.message}") from None
        self.image.config.stop_signal = name

    def _set_shell(self, item: Instruction) -> None:
        if not item.is_exec or not item.words:
            raise item.place.error('SHELL takes a JSON list, as in ["/bin/bash", "-c"]')
        self.image.config.shell = list(item.words)

    def _entrypoint(self, item: Instruction) -> None:
        self.image.config.entrypoint = self._command(item)
        if "CMD" not in self._seen:
            # CMD of the base was for the ENTRYPOINT of the base (Dockerfile reference, "Understand
            # how CMD and ENTRYPOINT interact").
            self.image.config.cmd = []

    def _cmd(self, item: Instruction) -> None:
        self.image.config.cmd = self._command(item)

    def _command(self, item: Instruction) -> list[str]:
        if item.is_exec:
            return list(item.words)
        if item.text.startswith("["):
            self._world.warnings.check(
                warnings.JSON_ARGS,
                item.place,
                f"{item.name} looks like a JSON list and is none (texts need double quotes):"
                " it is run by the shell, as Docker does",
            )
        elif "SHELL" not in self._seen:
            self._world.warnings.check(
                warnings.JSON_ARGS,
                item.place,
                f"{item.name} is run by a shell, which does not pass the stop signal on:"
                f' {item.name} ["program", "argument"] is run as it is',
            )
        return [*self.image.config.shell, item.text]

    def _healthcheck(self, item: Instruction) -> None:
        kind, _, rest = item.text.partition(" ")
        if kind.upper() == "NONE" and not rest:
            self.image.config.healthcheck = None
            return
        if kind.upper() != "CMD" or not rest.strip():
            raise item.place.error("HEALTHCHECK takes NONE or CMD and a command")
        listed = words.json_list(rest.strip(), item.place)
        test = ["CMD-SHELL", rest.strip()] if listed is None else ["CMD", *listed]
        self.image.config.healthcheck = healthcheck(item, test)

    def _copy(self, item: Instruction) -> None:
        written = _words(item)
        if not written:
            raise item.place.error(f"{item.name} lacks a destination behind its documents")
        *sources, destination = [self._expanded(item, word) for word in written]
        texts = self._documents(item)
        given = self._world.source(item)
        picked: list[tuple[CopySource, str]] = [(TextSource(texts), name) for name in texts]
        for source in sources:
            if item.name == "ADD" and is_remote(source):
                raise item.place.error(
                    f"ADD of the remote file `{source[:120]}` needs a network",
                    hint="fetch it before the build and check its digest; " + NEEDS_CONTAINER,
                )
            picked.append((given, source))
        if not picked:
            raise item.place.error(f"{item.name} lacks a source and a destination")
        copying = Copy(
            place=item.place,
            sources=tuple(picked),
            destination=destination,
            owner=self._owner(item),
            mode=self._mode(item),
            is_add=item.name == "ADD",
            scratch=self._world.scratch,
        )
        copy(self.image.tree, copying, self.image.config.cwd)

    def _documents(self, item: Instruction) -> dict[str, str]:
        """Heredocs by name, variables put in where their name is not quoted."""
        return {
            one.name: self._expanded(item, one.text, keeps_quotes=True)
            if one.is_expanded
            else one.text
            for one in item.heredocs
        }

    def _on_build(self, item: Instruction) -> None:
        documents = "".join(f"\n{one.source}{one.name}" for one in item.heredocs)
        text = item.text + documents
        # Said here, and not when somebody builds on the image.
        parse_trigger(text, item.place, self._world.escape)
        self.image.config.on_build.append(text)

    def _owner(self, item: Instruction) -> tuple[int, int] | None:
        if "chown" not in item.flags:
            return None
        text = self._expanded(item, item.flags["chown"])
        try:
            return owner(self.image.tree, text)
        except MalformedImage as problem:
            raise item.place.wrap(problem) from None

    def _mode(self, item: Instruction) -> int | None:
        if "chmod" not in item.flags:
            return None
        text = self._expanded(item, item.flags["chmod"])
        if not re.fullmatch(r"[0-7]{3,5}", text) or int(text, 8) > MAX_MODE:
            raise item.place.error(f"--chmod={text[:40]}: expected an octal mode, as in 755")
        return int(text, 8)

    def _refuse_run(self, item: Instruction) -> None:
        raise item.place.error(
            "RUN needs a container, which there is none of", hint=NEEDS_CONTAINER
        )

    def _maintainer(self, item: Instruction) -> None:
        """It says nothing about what runs."""
        self._world.warnings.check(
            warnings.MAINTAINER,
            item.place,
            "MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=… says the same",
        )


def _words(item: Instruction) -> list[str]:
    """The words of a COPY without those that announce a heredoc."""
    if not item.heredocs:
        return list(item.words)
    return [word for word in item.words if heredoc_in(word, item.place) is None]


def _absolute(cwd: str, path: str) -> str:
    """A path of the image, without ``.``, ``..`` and double slashes."""
    parts: list[str] = []
    for part in ([] if path.startswith("/") else cwd.split("/")) + path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


MAX_PORT = 65_535
MAX_MODE = 0o7777
