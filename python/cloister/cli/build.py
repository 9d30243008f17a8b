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
from cloister.cli import output, params, settings
from cloister.config.setting import as_size
from cloister.errors import UsageError


class Builder(enum.StrEnum):
    """What runs the Dockerfile."""

    AUTO = "auto"
    DOCKER = "docker"
    BUILDAH = "buildah"
    PODMAN = "podman"
    NATIVE = "native"


def build(  # noqa: PLR0913 - the options of the command
    context: Annotated[
        pathlib.Path, typer.Argument(metavar="[CONTEXT]", help="Folder the Dockerfile copies from.")
    ] = pathlib.Path(),
    *,
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    builder: Annotated[
        Builder, typer.Option(help="What runs the Dockerfile: auto takes the one that works.")
    ] = Builder.AUTO,
    build_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Value for an ARG. Repeatable.")
    ] = None,
    result: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--output", metavar="FILE", help="The image; default: enclave.eif beside enclave.toml."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a Dockerfile into an enclave image (EIF).

    The same input gives the same image, byte for byte. Its PCRs are printed and written into
    enclave.toml, whose comments stay; enclave.Dockerfile records what was built. The native builder
    needs no tool and takes Dockerfiles FROM scratch without RUN.

    Example:
      cloister build
      cloister build --build-arg VERSION=1.2 --output out/enclave.eif ./app
    """
    if builder not in (Builder.AUTO, Builder.NATIVE):
        raise UsageError(
            f"the builder `{builder.value}` is not in this version",
            hint="--builder native (or auto) takes Dockerfiles FROM scratch without RUN",
        )
    toml = configuration.load(config)
    image = result if result is not None else config.parent / "enclave.eif"
    if builder is Builder.AUTO:
        output.note("builder: native")
    built = build_image(
        Request(
            toml=toml,
            context=context,
            output=image,
            record=image.with_name("enclave.Dockerfile"),
            build_args=_build_args(build_arg or []),
            epoch=_epoch(settings.load().source_date_epoch),
            now=dt.datetime.now(dt.UTC),
            tool_version=_version(),
        ),
        output.step,
    )
    _warn(toml, built)
    output.show(_shown(image, built), as_json=as_json, text=_told(built))


def _warn(toml: configuration.EnclaveToml, built: Built) -> None:
    for warning in built.warnings:
        output.warn(warning)
    if built.left_out:
        output.warn(f"never copied into an image: {', '.join(built.left_out)}")
    if toml.debug:
        output.warn("`debug = true`: it runs with zero PCRs and an open console, proving nothing")
    if built.pcrs.pcr8 is None:
        output.warn("the image is not signed, so it has no PCR8: [signing] names no pair")
    output.note("no kernel in it: the image is for the sandbox alone")


def _shown(image: pathlib.Path, built: Built) -> dict[str, Any]:
    return {
        "eif": str(image),
        "size": built.size,
        "builder": "native",
        "pcrs": built.pcrs.shown(),
        "service_port": built.service_port,
        "memory_needed": built.memory_needed,
        "has_kernel": False,
        "warnings": built.warnings,
    }


def _told(built: Built) -> str:
    output.note(
        f"{built.size} bytes; needs {as_size(built.memory_needed)} of memory;"
        f" the application is expected on port {built.service_port}"
    )
    return "\n".join(f"{name} {value}" for name, value in built.pcrs.shown().items())


def _build_args(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"--build-arg: expected NAME=VALUE, got `{params.printable(text)}`")
        found[name] = value
    return found


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
