"""Docker: BuildKit where the client has it, the classic builder else.

A client from 23.0 on has BuildKit in a plugin, buildx; older ones have it built in. The daemon is
the one that the client's own settings name (``DOCKER_HOST``, contexts); it may be on another
machine, so nothing here assumes that it sees our files.
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from cloister.build.builders import child
from cloister.build.builders.epoch import epoch_argument
from cloister.build.builders.protocol import PROBE_SECONDS, BuildRequest, Tell, Unusable
from cloister.build.builders.stage import Stage, staged
from cloister.build.builders.stored import Saved, not_there, read_identity, with_digest
from cloister.errors import UsageError

BUILDX_SINCE = 23
"""First major version of a client whose BuildKit is a plugin (Docker Engine 23.0 release notes)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """The ``docker`` client on PATH, and its daemon.

    Args:
        program: The client.
        variables: Added to its environment: ``DOCKER_HOST``.
        buildkit: ``False``: the classic builder, whatever there is.
        patience: Seconds that its daemon may take to say that it works.
    """

    program: str = "docker"
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    buildkit: bool = True
    patience: float = PROBE_SECONDS
    name: str = "docker"

    def unusable(self) -> Unusable | None:
        """See :meth:`Builder.unusable`."""
        if shutil.which(self.program) is None:
            return Unusable(f"there is no program `{self.program}`", "apt install docker.io")
        try:
            versions = self._versions()
        except child.NoAnswer as problem:
            return Unusable(
                f"its daemon cannot be used: {problem}",
                "start it (systemctl start docker), be in the group `docker`, or set DOCKER_HOST",
            )
        if versions is None:
            return Unusable(
                f"`{self.program}` is not Docker's own client",
                "podman has the same command line: --builder podman",
            )
        if versions.server_os != "linux":
            return Unusable(
                f"its daemon runs containers of {versions.server_os}",
                "switch it to Linux containers",
            )
        return None

    @contextlib.contextmanager
    def build(self, request: BuildRequest, tell: Tell) -> Iterator[Saved]:
        """See :meth:`ContainerBuilder.build`."""
        with_buildkit = self.buildkit and self.has_buildkit()
        if request.secrets and not with_buildkit:
            raise UsageError(
                "--secret needs BuildKit, and this docker has the classic builder only",
                hint="apt install docker-buildx (or docker-buildx-plugin), or --builder buildah",
            )
        shown = "docker (BuildKit)" if with_buildkit else "docker (classic builder)"
        with staged(request, tell) as stage:
            bases = _Bases()

            def line(text: str) -> None:
                bases.read(text)
                tell(text)

            identity_file = stage.folder / "identity"
            how = _buildkit(request, stage) if with_buildkit else _classic(request, stage)
            command = [
                *self._docker({"DOCKER_BUILDKIT": "1" if with_buildkit else "0"}),
                "build",
                *how,
                *_both(request),
                f"--iidfile={identity_file}",
                "--",
                str(stage.context),
            ]
            ended = child.run(command, line)
            if ended.status:
                raise child.failure(shown, ended, stage.hint(ended.last))
            identity = read_identity(identity_file, shown)
            used = tuple(self._base(base) for base in bases.found)
            yield self._saved(identity, shown, bases=used, left_out=stage.left_out)

    def find(self, reference: str) -> Saved:
        """See :meth:`ContainerBuilder.find`."""
        try:
            identity = str(self._image(reference)["Id"])
        except (child.NoAnswer, ValueError, LookupError, TypeError):
            raise not_there(reference, self.name) from None
        return self._saved(identity, "docker", bases=(), left_out=())

    def _saved(
        self, identity: str, shown: str, *, bases: tuple[str, ...], left_out: tuple[str, ...]
    ) -> Saved:
        return Saved(
            identity=identity,
            builder=shown,
            bases=bases,
            left_out=left_out,
            saving=lambda archive: [
                *self._docker(),
                "image",
                "save",
                f"--output={archive}",
                identity,
            ],
        )

    def _image(self, reference: str) -> dict[str, Any]:
        """What the daemon says about an image."""
        command = [*self._docker(), "image", "inspect", "--format={{json .}}", "--", reference]
        found: dict[str, Any] = json.loads(child.ask(command))
        return found

    def _docker(self, more: Mapping[str, str] | None = None) -> list[str]:
        variables = {**self.variables, **(more or {})}
        # Attestations would make an index of an image, and its identity one of the index.
        variables["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
        return ["env", *(f"{name}={value}" for name, value in variables.items()), self.program]

    def _versions(self) -> "_Versions | None":
        command = [*self._docker(), "version", "--format={{json .}}"]
        try:
            told = json.loads(child.ask(command, self.patience))
            return _Versions(
                client=int(str(told["Client"]["Version"]).split(".")[0]),
                server_os=str(told["Server"]["Os"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def has_buildkit(self) -> bool:
        """Whether this client can build with BuildKit."""
        try:
            versions = self._versions()
            if versions is not None and versions.client >= BUILDX_SINCE:
                child.ask([*self._docker(), "buildx", "version"])
        except child.NoAnswer:
            return False
        return versions is not None

    def _base(self, base: str) -> str:
        """A base image with its digest, if the daemon knows one."""
        name, _, identity = base.partition(" ")
        if "@" in name:
            return name
        try:
            told = self._image(identity or name)
            digests = [str(digest) for digest in told.get("RepoDigests") or ()]
            return with_digest(name, digests, str(told["Id"]))
        except (child.NoAnswer, ValueError, LookupError, TypeError, AttributeError):
            return name


@dataclasses.dataclass(frozen=True, slots=True)
class _Versions:
    client: int
    server_os: str


class _Bases:
    """Reads base images from what a builder prints: nothing else says what was used."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._stages: set[str] = set()
        self._classic = ""

    def read(self, line: str) -> None:
        if match := _BUILDKIT_FROM.match(line):
            self._add(match[1])
        elif match := _CLASSIC_FROM.match(line):
            self._classic = "" if match[1].lower() in self._stages else match[1]
            self._stages.add((match[2] or "").lower())
        elif self._classic and (match := _CLASSIC_IMAGE.match(line)):
            self._add(f"{self._classic} {match[1]}")
            self._classic = ""

    def _add(self, base: str) -> None:
        if base not in self.found:
            self.found.append(base)


def _both(request: BuildRequest) -> list[str]:
    words = [f"--platform=linux/{request.architecture}"]
    words += [f"--build-arg={name}={value}" for name, value in request.build_args.items()]
    words += ["--no-cache"] if request.no_cache else []
    words += [f"--target={request.target}"] if request.target is not None else []
    return words


def _buildkit(request: BuildRequest, stage: Stage) -> list[str]:
    words = ["--progress=plain", f"--file={stage.dockerfile}"]
    words += [f"--secret={secret}" for secret in request.secrets]
    return [*words, *epoch_argument(request, stage, always=True)]


def _classic(request: BuildRequest, stage: Stage) -> list[str]:
    # It reads this file alone, which is not the one that decided.
    own = request.dockerfile.with_name(request.dockerfile.name + ".dockerignore")
    if own.exists():
        (stage.context / ".dockerignore").unlink(missing_ok=True)
    if stage.inner_dockerfile is None:
        # For a Dockerfile from elsewhere the client adds a name of chance to the context's
        # .dockerignore, and both would be in an image of the whole context. One that names itself
        # is taken away by the daemon.
        (stage.context / ".dockerignore").write_text(".dockerignore\n")
    words = ["--force-rm", f"--file={stage.inner_dockerfile or stage.dockerfile}"]
    return [*words, *epoch_argument(request, stage)]


_BUILDKIT_FROM = re.compile(r"#\d+ \[[^\]]*\] FROM (\S+)")
_CLASSIC_FROM = re.compile(r"Step \d+/\d+ : FROM (?:--\S+ +)*(\S+)(?: +AS +(\S+))?", re.IGNORECASE)
_CLASSIC_IMAGE = re.compile(r" ---> ([0-9a-f]{12,64})$")
