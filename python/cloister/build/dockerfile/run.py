"""Runs a Dockerfile without RUN: copies files, keeps settings, in the order of its lines."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile import words
from cloister.build.dockerfile.context import Context
from cloister.build.dockerfile.copy import Copy, copy
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.dockerfile.parse import Instruction, Parsed, pairs, parse
from cloister.build.dockerfile.place import ONLY_NATIVE
from cloister.build.image_config import Healthcheck, ImageConfig, signal_number
from cloister.build.rootfs import Directory, Tree, shown
from cloister.errors import MalformedImage, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a Dockerfile is run.

    Args:
        build_args: Values for ARG.
        private: Files and folders that are never copied.
        architecture: As Docker names it: ``amd64`` or ``arm64``.
    """

    build_args: Mapping[str, str] = dataclasses.field(default_factory=dict)
    private: frozenset[pathlib.Path] = frozenset()
    architecture: str = "amd64"


def run(dockerfile: pathlib.Path, context: pathlib.Path, options: Options) -> BuiltImage:
    """Runs a Dockerfile.

    Args:
        dockerfile: The file.
        context: The folder it may copy from.
        options: How.

    Raises:
        MissingInput: There is no such file or folder.
        MalformedImage: With file and line: what is wrong, or needs another builder.
    """
    if not context.is_dir():
        raise MissingInput(f"the build context `{context}` is not a folder")
    text = _read(dockerfile)
    running = _Running(parse(text, str(dockerfile)), dockerfile, context, options)
    image = running.whole()
    image.record = _record(text, options)
    return image


class _Running:
    def __init__(
        self, parsed: Parsed, dockerfile: pathlib.Path, context: pathlib.Path, options: Options
    ) -> None:
        self._parsed = parsed
        self._options = options
        ignore = Ignore.of(context, dockerfile)
        self._context = Context(context, ignore, options.private)
        self._tree = Tree()
        self._config = ImageConfig()
        self._warnings: list[str] = []
        platform = f"linux/{options.architecture}"
        self._global = {
            f"{where}{what}": value
            for where in ("BUILD", "TARGET")
            for what, value in (
                ("PLATFORM", platform),
                ("OS", "linux"),
                ("ARCH", options.architecture),
                ("VARIANT", ""),
            )
        }
        self._args: dict[str, str] = {}
        self._shell = ["/bin/sh", "-c"]
        self._is_in_stage = False
        self._used: set[str] = set()

    def whole(self) -> BuiltImage:
        for item in self._parsed.instructions:
            if not self._is_in_stage and item.name not in ("ARG", "FROM"):
                raise item.place.error(f"{item.name} stands before FROM")
            self._steps()[item.name](item)
        unused = sorted(set(self._options.build_args) - self._used)
        if unused:
            self._warnings.append(f"no ARG takes the build argument {', '.join(unused)}")
        self._check_command()
        return BuiltImage(
            tree=self._tree,
            config=self._config,
            warnings=self._warnings,
            left_out=sorted(self._context.left_out),
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
            "FROM": self._from,
            "HEALTHCHECK": self._healthcheck,
            "LABEL": self._label,
            "MAINTAINER": self._nothing,
            "ONBUILD": self._nothing,
            "RUN": self._refuse_run,
            "SHELL": self._set_shell,
            "STOPSIGNAL": self._stop_signal,
            "USER": self._user,
            "VOLUME": self._volume,
            "WORKDIR": self._workdir,
        }

    def _values(self) -> dict[str, str]:
        """Variables in sight: ENV wins over ARG."""
        return self._args | self._config.env if self._is_in_stage else self._global

    def _expanded(self, item: Instruction, word: str) -> str:
        return words.expand(word, self._values(), self._parsed.escape, item.place)

    def _from(self, item: Instruction) -> None:
        if self._is_in_stage:
            raise item.place.error("a second FROM: a multi-stage Dockerfile", hint=ONLY_NATIVE)
        image = self._expanded(item, item.words[0])
        named = [word.upper() for word in item.words[1:]]
        if named and (len(named) == 1 or named[0] != "AS"):
            raise item.place.error(f"expected FROM image AS name, found {item.text[:80]!r}")
        platform = self._expanded(item, item.flags.get("platform", ""))
        if platform and platform != self._global["TARGETPLATFORM"]:
            raise item.place.error(
                f"--platform={platform} is not the platform of this build,"
                f" {self._global['TARGETPLATFORM']}"
            )
        if image != "scratch":
            raise item.place.error(f"`FROM {image[:80]}` needs a base image", hint=ONLY_NATIVE)
        self._is_in_stage = True

    def _arg(self, item: Instruction) -> None:
        for word in item.words:
            name, equals, default = word.partition("=")
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise item.place.error(f"ARG {name[:40]!r} is not a name")
            value: str | None = self._expanded(item, default) if equals else None
            if self._is_in_stage and not equals:
                value = self._global.get(name)
            if name in self._options.build_args:
                value = self._options.build_args[name]
                self._used.add(name)
            if value is not None:
                (self._args if self._is_in_stage else self._global)[name] = value

    def _env(self, item: Instruction) -> None:
        # All values of one ENV see the variables as they were before it.
        made = {
            self._expanded(item, name): self._expanded(item, value) for name, value in pairs(item)
        }
        for name, value in made.items():
            if not name or "\0" in value:
                raise item.place.error(f"ENV {name[:40]!r} is not a variable")
        self._config.env |= made

    def _label(self, item: Instruction) -> None:
        self._config.labels |= {
            self._expanded(item, name): self._expanded(item, value) for name, value in pairs(item)
        }

    def _workdir(self, item: Instruction) -> None:
        path = self._expanded(item, item.words[0])
        if not path:
            raise item.place.error("WORKDIR is empty")
        self._config.cwd = _absolute(self._config.cwd, path)
        self._make_folder(item, self._config.cwd)

    def _volume(self, item: Instruction) -> None:
        for word in item.words:
            path = _absolute("/", word if item.is_exec else self._expanded(item, word))
            self._make_folder(item, path)
            self._config.volumes.append(path)

    def _make_folder(self, item: Instruction, path: str) -> None:
        try:
            self._tree.make_directories(self._tree.resolve(os.fsencode(path)))
        except MalformedImage as problem:
            raise item.place.error(problem.message) from None

    def _user(self, item: Instruction) -> None:
        self._config.user = self._expanded(item, item.words[0])

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
                if (port, protocol) not in self._config.exposed:
                    self._config.exposed.append((port, protocol))

    def _stop_signal(self, item: Instruction) -> None:
        name = self._expanded(item, item.words[0])
        try:
            signal_number(name)
        except MalformedImage as problem:
            raise item.place.error(f"STOPSIGNAL: {problem.message}") from None
        self._config.stop_signal = name

    def _set_shell(self, item: Instruction) -> None:
        if not item.is_exec or not item.words:
            raise item.place.error('SHELL takes a JSON list, as in ["/bin/bash", "-c"]')
        self._shell = list(item.words)

    def _entrypoint(self, item: Instruction) -> None:
        self._config.entrypoint = self._command(item)

    def _cmd(self, item: Instruction) -> None:
        self._config.cmd = self._command(item)

    def _command(self, item: Instruction) -> list[str]:
        if item.is_exec:
            return list(item.words)
        if item.text.startswith("["):
            self._warnings.append(
                f"{item.place.file}:{item.place.line}: {item.name} looks like a JSON list and is"
                " none (texts need double quotes): it is run by the shell, as Docker does"
            )
        return [*self._shell, item.text]

    def _healthcheck(self, item: Instruction) -> None:
        kind, _, rest = item.text.partition(" ")
        if kind.upper() == "NONE" and not rest:
            self._config.healthcheck = None
            return
        if kind.upper() != "CMD" or not rest.strip():
            raise item.place.error("HEALTHCHECK takes NONE or CMD and a command")
        listed = words.json_list(rest.strip())
        test = ["CMD-SHELL", rest.strip()] if listed is None else ["CMD", *listed]
        self._config.healthcheck = Healthcheck(test=test)

    def _copy(self, item: Instruction) -> None:
        listed = [self._expanded(item, word) for word in item.words]
        *sources, destination = listed
        for source in sources:
            if item.name == "ADD" and re.match(r"(https?://|git@|git://|ssh://)", source):
                raise item.place.error(
                    f"ADD of the remote file `{source[:120]}` is not supported",
                    hint="fetch it before the build and check its digest; " + ONLY_NATIVE,
                )
        uid, gid = self._owner(item)
        copying = Copy(
            place=item.place,
            sources=tuple(sources),
            destination=destination,
            uid=uid,
            gid=gid,
            mode=self._mode(item),
            is_add=item.name == "ADD",
        )
        copy(self._tree, self._context, copying, self._config.cwd)

    def _owner(self, item: Instruction) -> tuple[int, int]:
        if "chown" not in item.flags:
            return 0, 0
        text = self._expanded(item, item.flags["chown"])
        found = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", text)
        ids = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not found or max(ids) > MAX_ID:
            raise item.place.error(
                f"--chown={text[:40]}: expected numbers, as in 1000:1000",
                hint="the native builder reads no passwd: names need another builder",
            )
        return ids

    def _mode(self, item: Instruction) -> int | None:
        if "chmod" not in item.flags:
            return None
        text = self._expanded(item, item.flags["chmod"])
        if not re.fullmatch(r"[0-7]{3,5}", text) or int(text, 8) > MAX_MODE:
            raise item.place.error(f"--chmod={text[:40]}: expected an octal mode, as in 755")
        return int(text, 8)

    def _refuse_run(self, item: Instruction) -> None:
        raise item.place.error("RUN needs a container, which there is none of", hint=ONLY_NATIVE)

    def _nothing(self, item: Instruction) -> None:
        """MAINTAINER and ONBUILD say nothing about what runs."""

    def _check_command(self) -> None:
        """A program that is not in the image is better said now than at boot."""
        if not self._config.argv:
            return
        program = self._config.argv[0]
        if "/" in program:
            tried = [_absolute(self._config.cwd, program)]
        else:
            folders = self._config.env.get("PATH", "").split(":")
            tried = [_absolute(self._config.cwd, f"{at or '.'}/{program}") for at in folders]
        nodes = [self._tree.node(self._tree.resolve(os.fsencode(path))) for path in tried]
        if all(node is None or isinstance(node, Directory) for node in nodes):
            name = shown(os.fsencode(program))
            raise MalformedImage(
                f"`{name}`, which the image is to run, is not in the image",
                hint="the shell form of ENTRYPOINT and CMD needs a shell: use the exec form"
                if self._config.argv[:2] == ["/bin/sh", "-c"]
                else "COPY it, or name it by its path in the image",
            )


def _absolute(cwd: str, path: str) -> str:
    """A path of the image, without ``.``, ``..`` and double slashes."""
    parts: list[str] = []
    for part in ([] if path.startswith("/") else cwd.split("/")) + path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _read(dockerfile: pathlib.Path) -> str:
    try:
        raw = dockerfile.read_bytes()
    except FileNotFoundError:
        raise MissingInput(
            f"there is no Dockerfile `{dockerfile}`",
            hint="`dockerfile` in enclave.toml names it, relative to that file",
        ) from None
    except OSError as problem:
        raise MissingInput(f"`{dockerfile}` cannot be read: {problem.strerror}") from problem
    if len(raw) > MAX_BYTES:
        raise MalformedImage(f"`{dockerfile}` is longer than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise MalformedImage(f"{dockerfile}:{line}: not UTF-8") from None


def _record(text: str, options: Options) -> str:
    names = ", ".join(sorted(options.build_args)) or "none"
    head = (
        "# Record of a build by cloister: what was built, for whoever wants to build it again.\n"
        "# builder: native\n"
        f"# platform: linux/{options.architecture}\n"
        "# base: scratch (empty, no digest)\n"
        f"# build arguments, names only: {names}\n"
    )
    # The Dockerfile's own directives must not be taken for ours, nor ours for comments of it.
    return f"{head}\n{text}"


MAX_BYTES = 1 << 20
MAX_PORT = 65_535
MAX_ID = 0xFFFF_FFFE
MAX_MODE = 0o7777
