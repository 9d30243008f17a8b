"""``cloister build``: a Dockerfile becomes an enclave image."""

import datetime as dt
import enum
import pathlib
import re
from importlib import metadata
from typing import Annotated, Any

import typer

from cloister import config as configuration
from cloister.build import Built, Request, build_image
from cloister.cli import _build_source, output, params, settings
from cloister.config.setting import as_size
from cloister.errors import UsageError


class Builder(enum.StrEnum):
    """What runs the Dockerfile."""

    AUTO = "auto"
    DOCKER = "docker"
    BUILDAH = "buildah"
    PODMAN = "podman"
    NATIVE = "native"


class Platform(enum.StrEnum):
    """What an image is for."""

    AMD64 = "linux/amd64"
    ARM64 = "linux/arm64"


def build(  # noqa: PLR0913 - the options of the command
    context: Annotated[
        pathlib.Path, typer.Argument(metavar="[CONTEXT]", help="Folder the Dockerfile copies from.")
    ] = pathlib.Path(),
    *,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    image: Annotated[
        str | None,
        typer.Option(
            metavar="REF|TAR|DIR",
            help="Take this image instead: a `docker save` or OCI archive, an OCI layout, or the"
            " name of an image that docker, podman or buildah holds.",
        ),
    ] = None,
    rootfs: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="DIR", help="Take the files of this folder instead."),
    ] = None,
    entrypoint: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help='With --rootfs, what runs: a path or ["/app", "--flag"].'
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="With --rootfs, a variable. Repeatable."),
    ] = None,
    workdir: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --rootfs, the working directory.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER[:GROUP]", help="With --rootfs, who it runs as.")
    ] = None,
    builder: Annotated[
        Builder, typer.Option(help="What runs the Dockerfile: auto takes the first that works.")
    ] = Builder.AUTO,
    build_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value for an ARG. Repeatable.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="id=ID,src=FILE", help="Secret for RUN --mount. Repeatable."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Stage of the Dockerfile; default: the last."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run and read everything again.")
    ] = False,
    platform: Annotated[Platform, typer.Option(help="What the image is for.")] = Platform.AMD64,
    result: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--output", metavar="FILE", help="The image; default: enclave.eif beside enclave.toml."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a Dockerfile or an image into an enclave image (EIF).

    The same input gives the same image, byte for byte. Its PCRs are printed and written into
    enclave.toml, whose comments stay; enclave.Dockerfile records what was built. A Dockerfile with
    RUN is run by docker, buildah or podman; one without needs none of them.

    Example:
      cloister build
      cloister build --builder buildah --build-arg VERSION=1.2 --output out/enclave.eif ./app
      cloister build --image debian-app.tar
      cloister build --rootfs ./root --entrypoint /usr/bin/server
    """
    source = _build_source.source(
        _build_source.Given(
            context=context,
            image=image,
            rootfs=rootfs,
            builder=builder.value,
            build_args=_build_source.pairs("--build-arg", build_arg or []),
            secrets=tuple(secret or ()),
            target=target,
            no_cache=no_cache,
            entrypoint=entrypoint,
            env=_build_source.pairs("--env", env or []),
            workdir=workdir,
            user=user,
            architecture=platform.value.removeprefix("linux/"),
        )
    )
    toml = configuration.load(config)
    written = result if result is not None else config.parent / "enclave.eif"
    environment = settings.load()
    built = build_image(
        Request(
            toml=toml,
            source=source,
            output=written,
            record=written.with_name("enclave.Dockerfile"),
            architecture=platform.value.removeprefix("linux/"),
            epoch=_epoch(environment.source_date_epoch),
            now=dt.datetime.now(dt.UTC),
            tool_version=_version(),
            kernels=environment.kernels,
            is_cached=not no_cache,
        ),
        output.progress(),
    )
    _warn(toml, built)
    output.show(_shown(written, built), as_json=as_json, text=_told(built))


def _warn(toml: configuration.EnclaveToml, built: Built) -> None:
    for warning in built.warnings:
        output.warn(warning)
    if built.left_out:
        output.warn(f"never copied into an image: {', '.join(built.left_out)}")
    if toml.debug:
        output.warn("`debug = true`: it runs with zero PCRs and an open console, proving nothing")
    if "PCR8" not in built.pcrs:
        output.warn("the image is not signed, so it has no PCR8: [signing] names no pair")
    if built.kernel is None:
        output.note("no kernel in it: the image is for the sandbox alone")
    else:
        output.note(f"kernel {built.kernel}: the image is for {', '.join(built.runners)}")


def _shown(image: pathlib.Path, built: Built) -> dict[str, Any]:
    return {
        "eif": str(image),
        "size": built.size,
        "builder": built.builder,
        "reused": built.reused,
        "pcrs": built.pcrs,
        "service_port": built.service_port,
        "memory_needed": built.memory_needed,
        "has_kernel": built.kernel is not None,
        "kernel": built.kernel,
        "runners": built.runners,
        "warnings": built.warnings,
    }


def _told(built: Built) -> str:
    output.note(
        f"{built.size} bytes; needs {as_size(built.memory_needed)} of memory;"
        f" the application is expected on port {built.service_port}"
    )
    return "\n".join(f"{name} {value}" for name, value in built.pcrs.items())


def _epoch(text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > LAST_TIME:
        raise UsageError(
            f"SOURCE_DATE_EPOCH: expected seconds since 1970, got `{params.printable(text)}`",
            hint="unset it, or set it as in SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
        )
    return int(text)


def _version() -> str:
    try:
        return metadata.version("cloister")
    except metadata.PackageNotFoundError:
        return "0"


LAST_TIME = 0xFFFF_FFFF
"""A ramdisk has 32 bits for a time."""
