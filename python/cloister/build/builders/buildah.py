"""buildah and podman: the same builder without a daemon, under two command lines.

Both run as any user who has subordinate ids. Isolation is their own default; where the container
runtime does not work (inside most containers), it is ``chroot``.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from cloister.build.builders import child
from cloister.build.builders.epoch import epoch_argument
from cloister.build.builders.leftover import Leftover
from cloister.build.builders.protocol import PROBE_SECONDS, BuildRequest, Tell, Unusable
from cloister.build.builders.stage import Stage, staged
from cloister.build.builders.stored import Saved, not_there, read_identity, with_digest
from cloister.errors import UsageError

SECRETS_SINCE = (1, 23)
"""First version of buildah with ``--secret`` (its release notes); podman 3.3 and later carry it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """The program on PATH.

    Args:
        program: The program.
        options: Its own options, before the command: ``--root``.
        variables: Added to its environment.
        patience: Seconds that it may take to say that it works.
    """

    program: str = "buildah"
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patience: float = PROBE_SECONDS
    name: str = "buildah"

    def unusable(self) -> Unusable | None:
        """See :meth:`Builder.unusable`."""
        if shutil.which(self.program) is None:
            return Unusable(f"there is no program `{self.program}`", f"apt install {self.name}")
        with tempfile.TemporaryDirectory(prefix="cloister-") as folder:
            # A store of its own, as looking at the user's would make it where there is none.
            store = ("--root", f"{folder}/root", "--runroot", f"{folder}/run")
            try:
                child.ask([*self._tool(()), *store, "--storage-driver=vfs", "info"], self.patience)
            except child.NoAnswer as problem:
                return Unusable(
                    f"`{self.program} info` failed: {problem}",
                    "it needs subordinate ids and newuidmap: apt install uidmap, and a line of"
                    " this user in /etc/subuid and /etc/subgid",
                )
        return None

    @contextlib.contextmanager
    def build(self, request: BuildRequest, tell: Tell) -> Iterator[Saved]:
        """See :meth:`ContainerBuilder.build`."""
        if request.secrets and not self._takes_secrets():
            raise UsageError(
                f"--secret needs buildah {'.'.join(map(str, SECRETS_SINCE))} or later",
                hint="install a later one, or --builder docker",
            )
        tool = self._with_driver(tell)
        with staged(request, tell) as stage, Leftover(tool, self._listing(), tell):
            identity_file = stage.folder / "identity"
            words = [*_words(request, stage), f"--iidfile={identity_file}"]
            bases = _Bases.of(request, stage)
            # What they leave in their folder for temporary files when stopped goes with it.
            tool_here = ["env", f"TMPDIR={stage.folder}", *tool]
            ended, lacks_runtime = self._run(tool_here, [*words, str(stage.context)], bases, tell)
            if ended.status and lacks_runtime:
                tell(f"{self.name}: no container can be started here, trying --isolation=chroot")
                bases = _Bases.of(request, stage)
                words.append("--isolation=chroot")
                ended, _ = self._run(tool_here, [*words, str(stage.context)], bases, tell)
            if ended.status:
                raise child.failure(self.name, ended, stage.hint(ended.last))
            identity = read_identity(identity_file, self.name)
            used = tuple(self._base(tool, base) for base in bases.found)
            yield self._saved(tool, identity, bases=used, left_out=stage.left_out)

    def find(self, reference: str) -> Saved:
        """See :meth:`ContainerBuilder.find`."""
        tool = self._tool(self.options)
        try:
            told = self._image(tool, reference)
            identity = (
                f"sha256:{str(told.get('FromImageID') or told['Id']).removeprefix('sha256:')}"
            )
        except (child.NoAnswer, ValueError, LookupError, AttributeError):
            raise not_there(reference, self.name) from None
        return self._saved(tool, identity, bases=(), left_out=())

    def _listing(self) -> list[str]:
        return ["containers", "--all", "--json"]

    def _saving(self, identity: str, archive: str) -> list[str]:
        return ["push", "--quiet", identity, f"docker-archive:{archive}"]

    def _inspecting(self, image: str) -> list[str]:
        return ["inspect", "--type=image", image]

    def _takes_secrets(self) -> bool:
        try:
            told = child.ask([*self._tool(()), "--version"])
        except child.NoAnswer:
            return True  # The build itself says what is wrong.
        found = re.search(r"(\d+)\.(\d+)", told)
        return found is None or (int(found[1]), int(found[2])) >= SECRETS_SINCE

    def _tool(self, options: tuple[str, ...]) -> list[str]:
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        return [*(["env", *variables] if variables else []), self.program, *options]

    def _with_driver(self, tell: Tell) -> list[str]:
        """The program with a storage driver that works: its own, else the one that always does."""
        tool = self._tool(self.options)
        try:
            child.ask([*tool, "info"])
        except child.NoAnswer as problem:
            if not any(word in str(problem) for word in ("overlay", "driver", "graph")):
                return tool  # The build itself says what is wrong.
            tell(f"{self.name}: {problem}; trying --storage-driver=vfs")
            return [*tool, "--storage-driver=vfs"]
        return tool

    def _run(
        self, tool: list[str], words: list[str], bases: "_Bases", tell: Tell
    ) -> tuple[child.Ended, bool]:
        lacks_runtime = False

        def line(text: str) -> None:
            nonlocal lacks_runtime
            lacks_runtime |= _NO_RUNTIME.search(text) is not None
            bases.read(text)
            if not _NOT_A_WARNING.search(text):
                tell(text)

        return child.run([*tool, "build", *words], line), lacks_runtime

    def _saved(
        self, tool: list[str], identity: str, *, bases: tuple[str, ...], left_out: tuple[str, ...]
    ) -> Saved:
        return Saved(
            identity=identity,
            builder=self.name,
            bases=bases,
            left_out=left_out,
            saving=lambda archive: [*tool, *self._saving(identity, str(archive))],
        )

    def _image(self, tool: list[str], name: str) -> dict[str, Any]:
        """What the store says about an image."""
        told = json.loads(child.ask([*tool, *self._inspecting(name)]))
        found: dict[str, Any] = told[0] if isinstance(told, list) else told
        return found

    def _base(self, tool: list[str], name: str) -> str:
        """A base image with its digest."""
        try:
            told = self._image(tool, name)
            digest = told.get("FromImageDigest") or told.get("Digest")
            return with_digest(name, [f"@{digest}"] if digest else [], "no digest")
        except (child.NoAnswer, ValueError, LookupError, AttributeError):
            return name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Podman(Buildah):
    """The same builder, as podman has it."""

    program: str = "podman"
    name: str = "podman"

    def _listing(self) -> list[str]:
        return ["ps", "--all", "--external", "--format=json"]

    def _saving(self, identity: str, archive: str) -> list[str]:
        return ["save", "--quiet", "--format=docker-archive", f"--output={archive}", identity]

    def _inspecting(self, image: str) -> list[str]:
        return ["image", "inspect", image]

    def _takes_secrets(self) -> bool:
        return True


class _Bases:
    """Reads base images from what they print: nothing else says what was used.

    Args:
        written: What a person wrote, where a base is named: Dockerfile and build arguments.
    """

    def __init__(self, written: str) -> None:
        self.found: list[str] = []
        self._written = written
        self._stages: set[str] = set()

    @classmethod
    def of(cls, request: BuildRequest, stage: Stage) -> "_Bases":
        text = stage.dockerfile.read_text(encoding="utf-8", errors="replace")
        return cls("\n".join([text, *request.build_args.values()]))

    def read(self, line: str) -> None:
        match = _FROM.match(line)
        if match is None:
            return
        # A stage that another one starts from is named by its identity, which nobody wrote.
        is_made = _IDENTITY.fullmatch(match[1]) is not None and match[1] not in self._written
        if not is_made and match[1] not in self.found and match[1].lower() not in self._stages:
            self.found.append(match[1])
        self._stages.add((match[2] or "").lower())


def _words(request: BuildRequest, stage: Stage) -> list[str]:
    words = [
        "--layers",
        "--force-rm",
        f"--platform=linux/{request.architecture}",
        f"--timestamp={request.epoch}",
        f"--file={stage.dockerfile}",
    ]
    # Their own name for the file of patterns, which nothing else reads.
    if not (stage.context / ".containerignore").exists():
        words.append(f"--ignorefile={stage.ignore}")
    words += [f"--build-arg={name}={value}" for name, value in request.build_args.items()]
    words += epoch_argument(request, stage)
    words += [f"--secret={secret}" for secret in request.secrets]
    words += ["--no-cache"] if request.no_cache else []
    words += [f"--target={request.target}"] if request.target is not None else []
    return words


_FROM = re.compile(
    r"(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: FROM (?:--\S+ +)*(?!scratch\b)(\S+)(?: +AS +(\S+))?",
    re.IGNORECASE,
)
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_NO_RUNTIME = re.compile(r"error running container: from \S+ (?:creat|start)ing container")
_NOT_A_WARNING = re.compile(r"build args were not consumed: \[TARGETARCH TARGETOS TARGETPLATFORM\]")
"""buildah 1.28 sets these itself, for ``--platform``."""
