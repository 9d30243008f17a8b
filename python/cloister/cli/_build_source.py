"""Arguments of ``cloister build`` that say what is built from: they become one source."""

import dataclasses
import json
import pathlib
import re

from cloister.build import FromDockerfile, FromFolder, FromImage
from cloister.build.image_config import ImageConfig
from cloister.cli import params
from cloister.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The arguments, as they were given.

    Args:
        context: Folder the Dockerfile copies from.
        image: ``--image``.
        rootfs: ``--rootfs``.
        builder: ``--builder``.
        build_args: ``--build-arg``.
        secrets: ``--secret``.
        target: ``--target``.
        no_cache: ``--no-cache``.
        entrypoint: ``--entrypoint``.
        env: ``--env``.
        workdir: ``--workdir``.
        user: ``--user``.
        architecture: Of ``--platform``.
    """

    context: pathlib.Path
    image: str | None
    rootfs: pathlib.Path | None
    builder: str
    build_args: dict[str, str]
    secrets: tuple[str, ...]
    target: str | None
    no_cache: bool
    entrypoint: str | None
    env: dict[str, str]
    workdir: str | None
    user: str | None
    architecture: str


def source(given: Given) -> FromDockerfile | FromImage | FromFolder:
    """What is built from.

    Raises:
        UsageError: Arguments that do not go together.
    """
    if given.image is not None and given.rootfs is not None:
        raise UsageError("--image and --rootfs: an image has one source, give one of them")
    if given.image is not None or given.rootfs is not None:
        _refuse(
            given,
            {
                "--build-arg": bool(given.build_args),
                "--secret": bool(given.secrets),
                "--target": given.target is not None,
            },
            "go with a Dockerfile",
        )
    if given.rootfs is None:
        _refuse(
            given,
            {
                "--entrypoint": given.entrypoint is not None,
                "--env": bool(given.env),
                "--workdir": given.workdir is not None,
                "--user": given.user is not None,
            },
            "go with --rootfs; an image says itself what runs",
        )
    if given.rootfs is not None:
        return FromFolder(folder=given.rootfs, config=_settings(given))
    if given.image is not None:
        return _image(given.image, given.builder)
    return FromDockerfile(
        context=given.context,
        builder=given.builder,
        build_args=given.build_args,
        secrets=given.secrets,
        target=given.target,
        no_cache=given.no_cache,
    )


def pairs(option: str, given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` arguments.

    Raises:
        UsageError: One of another form.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"{option}: expected NAME=VALUE, got `{params.printable(text)}`")
        found[name] = value
    return found


def _refuse(given: Given, there: dict[str, bool], where: str) -> None:
    del given
    named = [name for name, is_there in there.items() if is_there]
    if named:
        raise UsageError(f"{', '.join(named)}: they {where}")


def _image(text: str, builder: str) -> FromImage:
    """A path when there is something, an image of a store otherwise.

    ``transport:path[:name]`` is the spelling of containers-transports(5); ``path:name`` picks one
    image of several.
    """
    transport, colon, rest = text.partition(":")
    if colon and transport in TRANSPORTS:
        path, name = _split(rest)
        return FromImage(path=path, name=name)
    if colon and transport in STORES:
        return FromImage(reference=rest.removeprefix("//"), builder=STORES[transport])
    path, name = _split(text)
    if (
        path.exists()
        or text.endswith((".tar", ".tgz", ".gz", ".zst"))
        or text.startswith((".", "/"))
    ):
        return FromImage(path=path, name=name)
    return FromImage(reference=text, builder=builder)


def _split(text: str) -> tuple[pathlib.Path, str | None]:
    """Path and name; the path may have colons in it when it is there as it is written."""
    if not pathlib.Path(text).exists():
        path, colon, name = text.partition(":")
        if colon and pathlib.Path(path).exists():
            return pathlib.Path(path), name
    return pathlib.Path(text), None


def _settings(given: Given) -> ImageConfig:
    if given.entrypoint is None:
        raise UsageError(
            "--rootfs: a folder does not say what runs in it",
            hint="add --entrypoint /path/in/the/folder, or a JSON list of program and arguments",
        )
    config = ImageConfig(architecture=given.architecture)
    config.entrypoint = _command(given.entrypoint)
    config.env |= given.env
    config.user = given.user or ""
    config.cwd = given.workdir or "/"
    if not config.cwd.startswith("/"):
        raise UsageError(
            f"--workdir: expected an absolute path, got `{params.printable(config.cwd)}`"
        )
    return config


def _command(text: str) -> list[str]:
    if not text.startswith("["):
        return [text]
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    if not listed or not isinstance(listed, list) or not all(isinstance(it, str) for it in listed):
        raise UsageError(
            "--entrypoint: expected a path or a JSON list of texts,"
            f" got `{params.printable(text)}`",
            hint='as in --entrypoint \'["/app", "--port", "8008"]\'',
        )
    return listed


TRANSPORTS = {"docker-archive", "oci-archive", "oci"}
STORES = {"docker-daemon": "docker", "containers-storage": "buildah"}
