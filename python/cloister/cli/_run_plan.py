"""What `cloister run` is about to run: image, configuration and store agree, or it says why not.

An enclave that starts and then cannot be provisioned says little about why. Everything that can be
known before is checked before, and each failure says what to do.
"""

import base64
import dataclasses
import datetime as dt
import pathlib
import uuid
from collections.abc import Mapping

from cloister import config
from cloister.build import eif
from cloister.build.built_config import attested_of
from cloister.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What is to be run, checked.

    Args:
        toml: The ``enclave.toml``; the store is in its folder.
        image: The EIF.
        registers: PCRs that the image was measured to have; zero ones for a debug enclave.
        name: Name of the enclave.
        enclave: Its uuid.
        app: Uuid of its app.
        debug: Start it as a debug enclave.
        cpus: Processors; ``None`` for no bound.
        memory_bytes: Memory; ``None`` for no bound.
        needs_api_key: The enclave asks clients for an API key.
        scheme: How clients reach it: ``https``, ``tls`` or ``tcp``.
        drain_ms: How long the enclave may take to finish what is in flight.
        service_keys: Ed25519 keys that the image trusts bundles of.
        changed: Settings of the toml that differ from what was built into the image; the image's
            are the ones that count.
        listen: Address clients connect to, ``tcp:HOST:PORT``.
        dev_ca: Folder of the development roots.
        runtime: Folder for the run directory.
        start_timeout: How long the enclave may take to be ready.
    """

    toml: pathlib.Path
    image: pathlib.Path
    registers: Mapping[int, bytes]
    name: str
    enclave: uuid.UUID
    app: uuid.UUID
    debug: bool
    cpus: int | None
    memory_bytes: int | None
    needs_api_key: bool
    scheme: str
    drain_ms: int
    service_keys: tuple[bytes, ...]
    changed: tuple[str, ...]
    listen: str
    dev_ca: pathlib.Path
    runtime: pathlib.Path
    start_timeout: dt.timedelta


def make(  # noqa: PLR0913 - the options of the command
    path: pathlib.Path,
    *,
    image: pathlib.Path | None,
    listen: str,
    dev_ca: pathlib.Path,
    runtime: pathlib.Path,
    start_timeout: dt.timedelta,
) -> RunPlan:
    """Reads configuration and image, and checks that they belong together.

    Args:
        path: The ``enclave.toml``.
        image: The EIF; ``enclave.eif`` beside the toml when absent.
        changed: Settings of the toml that differ from what was built into the image; the image's
            are the ones that count.
        listen: Address clients connect to.
        dev_ca: Folder of the development roots.
        runtime: Folder for the run directory.
        start_timeout: How long the enclave may take to be ready.

    Raises:
        MissingInput: There is no such file.
        ConfigError: The configuration is wrong or incomplete, or the image is not the one whose
            PCRs it has.
        MalformedImage: The image cannot be read.
    """
    path = path.absolute()
    toml = config.load(path)
    if toml.uuid is None or toml.app_uuid is None or not toml.trust.service_keys:
        raise ConfigError(
            f"`{path}` lacks the identity of the enclave: `uuid`, `app_uuid`, `[trust]"
            " service_keys`",
            hint="`cloister init NAME` writes it",
        )
    image = (path.parent / IMAGE if image is None else image).absolute()
    with eif.open_eif(image) as opened:
        measured = eif.measure(opened).registers()
        built = attested_of(opened, image_path=image)
    check_image(measured, toml.attestation.registers(), image=image)
    now = toml.attested(service_port=built["service"]["port"])
    changed = tuple(sorted(key for key in now if now[key] != built.get(key)))
    if "uuid" in changed or "app_uuid" in changed:
        raise ConfigError(
            f"`{image}` was built for another identity than `{path}` has",
            hint="`cloister build` makes it again",
        )
    zeros = dict.fromkeys((0, 1, 2), bytes(48)) if built["debug"] else {}
    return RunPlan(
        toml=path,
        image=image,
        registers=measured | zeros,
        name=toml.name,
        enclave=toml.uuid,
        app=toml.app_uuid,
        debug=built["debug"],
        cpus=toml.resources.cpus,
        memory_bytes=toml.resources.memory,
        needs_api_key=built["api_key_auth"],
        scheme=config.scheme(built),
        drain_ms=built["limits"]["drain_timeout"],
        service_keys=tuple(base64.b64decode(key) for key in built["trust"]["service_keys"]),
        changed=changed,
        listen=listen,
        dev_ca=dev_ca,
        runtime=runtime,
        start_timeout=start_timeout,
    )


def check_image(
    measured: Mapping[int, bytes], written: Mapping[int, bytes], *, image: pathlib.Path
) -> None:
    """Whether the image is the one whose registers are in ``enclave.toml``.

    Args:
        measured: Registers of the image, computed from its bytes.
        written: Registers in ``[attestation]``.
        image: The image, for the message.

    Raises:
        ConfigError: None are written, or one differs; the message shows both.
    """
    if not written:
        raise ConfigError(
            "enclave.toml has no PCRs: the image was not built from it",
            hint="`cloister build` makes the image and writes its PCRs",
        )
    differing = [
        f"PCR{index} is {_shown(written.get(index))} in enclave.toml and"
        f" {_shown(measured.get(index))} in the image"
        for index in REGISTERS
        if written.get(index) != measured.get(index)
    ]
    if differing:
        raise ConfigError(
            f"`{image}` is not the image of this enclave.toml: {'; '.join(differing)}",
            hint="`cloister build` makes the image again and writes its PCRs",
        )


def _shown(register: bytes | None) -> str:
    return "absent" if register is None else f"{register.hex()[:16]}…"


IMAGE = "enclave.eif"
REGISTERS = (0, 1, 2, 8)
