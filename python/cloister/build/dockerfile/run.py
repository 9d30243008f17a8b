"""Runs a Dockerfile without RUN: the stages that its target needs, in order.

A stage starts from nothing, from an earlier stage, or from a saved image of this machine. What
needs a running container, or an image from a registry, is refused by line.
"""

import copy
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping

from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile.context import Context
from cloister.build.dockerfile.copy_source import ContextSource, CopySource, TreeSource
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.dockerfile.parse import Instruction, Parsed, parse
from cloister.build.dockerfile.place import NEEDS_BASE, NEEDS_CONTAINER
from cloister.build.dockerfile.plan import Plan, StagePlan, plan
from cloister.build.dockerfile.stage import Stage, World
from cloister.build.dockerfile.values import check_name
from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Tree
from cloister.errors import MalformedImage, MissingInput


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a Dockerfile is run.

    Args:
        build_args: Values for ARG.
        private: Files and folders that are never copied.
        architecture: As Docker names it: ``amd64`` or ``arm64``.
        target: The stage that is wanted; ``None``: the last.
        load_image: Reads a saved image; ``None``: there are none.
        scratch: Where archives are decompressed, to files without a name; ``None``: the system's.
    """

    build_args: Mapping[str, str] = dataclasses.field(default_factory=dict)
    private: frozenset[pathlib.Path] = frozenset()
    architecture: str = "amd64"
    target: str | None = None
    load_image: Callable[[pathlib.Path], BuiltImage] | None = None
    scratch: pathlib.Path | None = None


def run(dockerfile: pathlib.Path, context: pathlib.Path, options: Options) -> BuiltImage:
    """Runs a Dockerfile.

    Args:
        dockerfile: The file.
        context: The folder it may copy from.
        options: How.

    Raises:
        MissingInput: There is no such file or folder.
        UsageError: There is no such target.
        MalformedImage: With file and line: what is wrong, or needs another builder.
    """
    if not context.is_dir():
        raise MissingInput(f"the build context `{context}` is not a folder")
    text = _read(dockerfile)
    parsed = parse(text, str(dockerfile))
    running = _Running(parsed, plan(parsed), dockerfile, context, options)
    image = running.whole()
    image.record = _record(text, running.bases, options)
    return image


class _Running:
    def __init__(
        self,
        parsed: Parsed,
        plan: Plan,
        dockerfile: pathlib.Path,
        context: pathlib.Path,
        options: Options,
    ) -> None:
        self._plan = plan
        self._options = options
        self._folder = context
        self._context = Context(context, Ignore.of(context, dockerfile), options.private)
        self._done: dict[int, BuiltImage] = {}
        self._loaded: dict[pathlib.Path, BuiltImage] = {}
        self._now = 0
        self.bases: list[str] = []
        platform = f"linux/{options.architecture}"
        self._arguments = {
            f"{where}{what}": value
            for where in ("BUILD", "TARGET")
            for what, value in (
                ("PLATFORM", platform),
                ("OS", "linux"),
                ("ARCH", options.architecture),
                ("VARIANT", ""),
            )
        }
        self._world = World(
            escape=parsed.escape,
            arguments=self._arguments,
            build_args=options.build_args,
            used=set(),
            warnings=[],
            scratch=options.scratch or pathlib.Path(tempfile.gettempdir()),
            source=self._source,
        )

    def whole(self) -> BuiltImage:
        for item in self._plan.arguments:
            self._argument(item)
        target = self._plan.target(self._options.target)
        for index in sorted(self._needed(target)):
            self._now = index
            self._stage(self._plan.stages[index])
        image = self._done[target.index]
        unused = sorted(set(self._options.build_args) - self._world.used)
        if unused:
            self._world.warnings.append(f"no ARG takes the build argument {', '.join(unused)}")
        image.warnings = [*image.warnings, *self._world.warnings]
        image.left_out = sorted(self._context.left_out)
        return image

    def _argument(self, item: Instruction) -> None:
        for word in item.words:
            name, equals, default = word.partition("=")
            check_name(name, item)
            if name in self._options.build_args:
                self._arguments[name] = self._options.build_args[name]
                self._world.used.add(name)
            elif equals:
                self._arguments[name] = self._expanded(item, default)

    def _needed(self, target: StagePlan) -> set[int]:
        """Numbers of the stages that a stage needs, itself included; others are not run."""
        needed: set[int] = set()
        todo = [target]
        while todo:
            stage = todo.pop()
            if stage.index in needed:
                continue
            needed.add(stage.index)
            names = [self._expanded(stage.start, stage.start.words[0])]
            names += [item.flags["from"] for item in stage.instructions if "from" in item.flags]
            found = (self._plan.find(name, before=stage.index) for name in names)
            todo += [one for one in found if one is not None]
        return needed

    def _stage(self, planned: StagePlan) -> None:
        stage = Stage(self._world, self._start(planned))
        stage.run(planned.instructions)
        self._done[planned.index] = stage.image

    def _start(self, planned: StagePlan) -> BuiltImage:
        item = planned.start
        self._check_platform(item)
        name = self._expanded(item, item.words[0])
        if name.lower() == "scratch":
            if "scratch" not in self.bases:
                self.bases.append("scratch")
            config = ImageConfig(architecture=self._options.architecture)
            return BuiltImage(tree=Tree(), config=config)
        earlier = self._plan.find(name, before=planned.index)
        image = self._done[earlier.index] if earlier is not None else self._image(name, item)
        if image.config.on_build:
            raise item.place.error(
                f"`{name[:80]}` has ONBUILD {image.config.on_build[0][:60]!r}, which would run here",
                hint=NEEDS_CONTAINER,
            )
        return BuiltImage(
            tree=image.tree.copy(),
            config=copy.deepcopy(image.config),
            warnings=list(image.warnings),
        )

    def _check_platform(self, item: Instruction) -> None:
        platform = self._expanded(item, item.flags.get("platform", ""))
        if platform and platform != self._arguments["TARGETPLATFORM"]:
            raise item.place.error(
                f"--platform={platform} is not the platform of this build,"
                f" {self._arguments['TARGETPLATFORM']}"
            )

    def _source(self, item: Instruction) -> CopySource:
        name = item.flags.get("from")
        if name is None:
            return ContextSource(self._context)
        stage = self._plan.find(name, before=self._now)
        if stage is not None:
            return TreeSource(self._done[stage.index].tree, f"the stage `{name[:60]}`")
        return TreeSource(self._image(name, item).tree, f"the image `{name[:60]}`")

    def _image(self, name: str, item: Instruction) -> BuiltImage:
        """A saved image by its path."""
        transport, colon, rest = name.partition(":")
        if not colon or transport not in LOCAL or self._options.load_image is None:
            what = "names no stage before this line, and" if item.name != "FROM" else ""
            raise item.place.error(
                f"`{name[:80]}` {what} needs a base image from elsewhere".replace("  ", " "),
                hint=NEEDS_BASE,
            )
        path = self._folder / rest
        if path not in self._loaded:
            try:
                self._loaded[path] = self._options.load_image(path)
            except MalformedImage as problem:
                raise item.place.wrap(problem) from None
            except MissingInput as problem:
                raise item.place.error(problem.message, hint=problem.hint) from None
            self.bases.append(f"{name} {self._loaded[path].identity or ''}".strip())
        return self._loaded[path]

    def _expanded(self, item: Instruction, word: str) -> str:
        return expand(word, self._arguments, self._world.escape, item.place)


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


def _record(text: str, bases: list[str], options: Options) -> str:
    names = ", ".join(sorted(options.build_args)) or "none"
    head = (
        "# Record of a build by cloister: what was built, for whoever wants to build it again.\n"
        "# builder: native\n"
        f"# platform: linux/{options.architecture}\n"
        + "".join(f"# base: {base}\n" for base in bases)
        + f"# build arguments, names only: {names}\n"
    )
    # The Dockerfile's own directives must not be taken for ours, nor ours for comments of it.
    return f"{head}\n{text}"


MAX_BYTES = 1 << 20
LOCAL = {"docker-archive", "oci-archive", "oci"}
"""Spellings of a saved image (containers-transports(5))."""
