"""The configuration of a saved image, as Docker and the OCI specification (config.md) write it."""

import re

from cloister.build.image_config import Healthcheck, ImageConfig, signal_number
from cloister.build.sources.documents import Document, checked_digest
from cloister.errors import MalformedImage


def image_config(document: Document) -> ImageConfig:
    """What runs, as the configuration says.

    Raises:
        MalformedImage: A field is not what the specification says it is, or the image is not one
            for Linux.
    """
    system = document.text("os")
    if system not in ("", "linux"):
        raise MalformedImage(f"{document.name}: the image is for {system!r}, expected linux")
    inner = document.inner("config") or Document({}, f"{document.name}, `config`")
    config = ImageConfig(architecture=document.text("architecture") or "amd64")
    for variable in inner.texts("Env"):
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise inner.error("Env", "a list of name=value")
        config.env[name] = value
    config.entrypoint = inner.texts("Entrypoint")
    config.cmd = inner.texts("Cmd")
    config.cwd = inner.text("WorkingDir") or "/"
    if not config.cwd.startswith("/"):
        raise inner.error("WorkingDir", "an absolute path")
    config.user = inner.text("User")
    config.exposed = [_port(text, inner) for text in inner.names("ExposedPorts")]
    config.labels = inner.pairs("Labels")
    config.stop_signal = inner.text("StopSignal") or None
    if config.stop_signal is not None:
        signal_number(config.stop_signal)
    config.volumes = sorted(inner.names("Volumes"))
    config.shell = inner.texts("Shell") or config.shell
    config.healthcheck = _healthcheck(inner)
    config.on_build = inner.texts("OnBuild")
    return config


def diff_ids(document: Document) -> list[str]:
    """Digests of the layers, unpacked, from the lowest up.

    Raises:
        MalformedImage: They are not there, or not digests.
    """
    inner = document.inner("rootfs")
    if inner is None:
        raise document.error("rootfs", "there")
    return [checked_digest(text, f"{inner.name}, `diff_ids`") for text in inner.texts("diff_ids")]


def _port(text: str, document: Document) -> tuple[int, str]:
    found = re.fullmatch(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?", text)
    if not found or not 1 <= int(found[1]) <= MAX_PORT:
        raise document.error("ExposedPorts", "an object of ports, as in 8080/tcp")
    return int(found[1]), found[2] or "tcp"


def _healthcheck(config: Document) -> Healthcheck | None:
    inner = config.inner("Healthcheck")
    test = inner.texts("Test") if inner is not None else []
    if inner is None or not test or test == ["NONE"]:
        return None
    if test[0] not in ("CMD", "CMD-SHELL") or len(test) < MIN_TEST:
        raise inner.error("Test", "CMD and a command, or CMD-SHELL and a text")
    default = Healthcheck(test=test)
    return Healthcheck(
        test=test,
        interval_ms=_milliseconds(inner, "Interval", default.interval_ms),
        timeout_ms=_milliseconds(inner, "Timeout", default.timeout_ms),
        start_period_ms=_milliseconds(inner, "StartPeriod", default.start_period_ms),
        start_interval_ms=_milliseconds(inner, "StartInterval", default.start_interval_ms),
        retries=inner.whole("Retries") or default.retries,
    )


def _milliseconds(document: Document, field: str, default: int) -> int:
    """Docker writes nanoseconds, and 0 for its default."""
    found = document.whole(field)
    return max(1, found // 1_000_000) if found else default


MAX_PORT = 65_535
MIN_TEST = 2
