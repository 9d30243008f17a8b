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
from cloister.build.dockerfile.arguments import Arguments
from cloister.build.dockerfile.context import Context
from cloister.build.dockerfile.copy_source import ContextSource, CopySource, TreeSource
from cloister.build.dockerfile.expand import expand
from cloister.build.dockerfile.ignore import Ignore
from cloister.build.dockerfile.needs import is_local, needed
from cloister.build.dockerfile.parse import Instruction, Parsed, parse, parse_trigger
from cloister.build.dockerfile.place import NEEDS_BASE
from cloister.build.dockerfile.plan import Plan, StagePlan, plan
from cloister.build.dockerfile.stage import Stage, World
from cloister.build.dockerfile.warnings import DUPLICATE_STAGE_NAME, Warnings
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
    parsed = parse(_read(dockerfile), str(dockerfile))
    return _Running(parsed, plan(parsed), dockerfile, context, options).whole()


class _Running:
    def __init__(
        self,
        parsed: Parsed,
        planned: Plan,
        dockerfile: pathlib.Path,
        context: pathlib.Path,
        options: Options,
    ) -> None:
        self._plan = planned
        self._options = options
        self._folder = context
        self._context = Context(context, Ignore.of(context, dockerfile), options.private)
        self._done: dict[int, Stage] = {}
        self._loaded: dict[pathlib.Path, BuiltImage] = {}
        self._now = 0
        self._bases: list[str] = []
        escape = parsed.directives.escape
        self._world = World(
            escape=escape,
            arguments=Arguments(planned, options.build_args, options.architecture, escape),
            warnings=Warnings(parsed.directives),
            scratch=options.scratch or pathlib.Path(tempfile.gettempdir()),
            source=self._source,
        )

    def whole(self) -> BuiltImage:
        self._check_names()
        target = self._plan.target(self._options.target)
        self._run(target)
        image = self._done[target.index].image
        arguments, warnings = self._world.arguments, self._world.warnings
        if arguments.unused:
            warnings.say(f"no ARG takes the build argument {', '.join(arguments.unused)}")
        image.warnings = [*image.warnings, *warnings.end()]
        image.left_out = sorted(self._context.left_out)
        image.bases = self._bases
        return image

    def _check_names(self) -> None:
        names: set[str] = set()
        for stage in self._plan.stages:
            if stage.name in names:
                self._world.warnings.check(
                    DUPLICATE_STAGE_NAME,
                    stage.start.place,
                    f"an earlier stage is called `{stage.name}` too: lines below see this one",
                )
            names |= {stage.name} - {""}

    def _run(self, target: StagePlan) -> None:
        """Runs a stage, and those that it needs before it."""
        arguments = self._world.arguments.values
        for planned in needed(self._plan, target, arguments, self._world.escape):
            if planned.index not in self._done:
                self._stage(planned)

    def _stage(self, planned: StagePlan) -> None:
        before, self._now = self._now, planned.index
        stage = self._start(planned)
        held, stage.image.config.on_build = stage.image.config.on_build, []
        place, escape = planned.start.place, self._world.escape
        try:
            stage.run(tuple(parse_trigger(text, place, escape) for text in held))
        except MalformedImage as problem:
            raise place.error(
                f"ONBUILD of the base image: {problem.message.removeprefix(place.prefix)}",
                hint=problem.hint,
            ) from None
        stage.run(planned.instructions)
        self._done[planned.index] = stage
        self._now = before

    def _start(self, planned: StagePlan) -> Stage:
        item = planned.start
        self._check_platform(item)
        name = self._expanded(item, item.words[0])
        if name.lower() == "scratch":
            if "scratch" not in self._bases:
                self._bases.append("scratch")
            config = ImageConfig(architecture=self._options.architecture)
            return Stage(self._world, BuiltImage(tree=Tree(), config=config))
        earlier = self._plan.base(name, before=planned.index)
        parent = self._done[earlier.index] if earlier is not None else None
        image = self._image(name, item) if parent is None else parent.image
        own = BuiltImage(
            tree=image.tree.copy(),
            config=copy.deepcopy(image.config),
            warnings=list(image.warnings),
        )
        return Stage(self._world, own, parent)

    def _check_platform(self, item: Instruction) -> None:
        platform = self._expanded(item, item.flags.get("platform", ""))
        wanted = f"linux/{self._options.architecture}"
        if platform and platform != wanted:
            raise item.place.error(
                f"--platform={platform[:60]} is not the platform of this build, {wanted}"
            )

    def _source(self, item: Instruction) -> CopySource:
        name = item.flags.get("from")
        if name is None:
            return ContextSource(self._context)
        stage = self._plan.find(name, before=self._now)
        if stage is None:
            return TreeSource(self._image(name, item).tree, f"the image `{name[:60]}`")
        if stage.index not in self._done:
            # Named by an ONBUILD of a base, which nothing knew of when stages were picked.
            self._run(stage)
        return TreeSource(self._done[stage.index].image.tree, f"the stage `{name[:60]}`")

    def _image(self, name: str, item: Instruction) -> BuiltImage:
        """A saved image by its path."""
        if not is_local(name) or self._options.load_image is None:
            what = "names no stage before this line, and " if item.name != "FROM" else ""
            raise item.place.error(
                f"`{name[:80]}` {what}needs a base image from elsewhere", hint=NEEDS_BASE
            )
        path = self._folder / name.partition(":")[2]
        if path not in self._loaded:
            try:
                self._loaded[path] = self._options.load_image(path)
            except MalformedImage as problem:
                raise item.place.wrap(problem) from None
            except MissingInput as problem:
                raise item.place.error(problem.message, hint=problem.hint) from None
            self._bases.append(f"{name} {self._loaded[path].identity or ''}".strip())
        return self._loaded[path]

    def _expanded(self, item: Instruction, word: str) -> str:
        return expand(word, self._world.arguments.values, self._world.escape, item.place)


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


MAX_BYTES = 1 << 20
