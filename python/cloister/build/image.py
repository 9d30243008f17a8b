"""From a Dockerfile and an ``enclave.toml`` to an EIF: the whole of ``cloister build``.

Nothing of the output appears before all of it is there: the image is written beside its place and
renamed, then the record, then the PCRs in ``enclave.toml``.
"""

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloister import config
from cloister.build import cpio, dockerfile, runtime
from cloister.build.built_image import BuiltImage
from cloister.build.dockerfile.run import Options
from cloister.build.eif import Kind, Payload, Pcrs, SigningPair, metadata, write
from cloister.build.rootfs import Bytes, Directory, File, Tree
from cloister.config.edit import replace
from cloister.config.setting import as_size
from cloister.errors import ConfigError, OutputError

Step = Callable[[str], contextlib.AbstractContextManager[None]]
"""Called with the name of a stage; the block that it opens is the stage."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build.

    Args:
        toml: The checked ``enclave.toml``.
        context: Folder that the Dockerfile copies from.
        output: Path of the EIF.
        record: Path of ``enclave.Dockerfile``.
        build_args: Values for ARG.
        epoch: ``SOURCE_DATE_EPOCH``: time of every file, seconds since the Unix epoch.
        now: The time at which the signing certificate must be valid.
        tool_version: Version of this program, for the metadata.
        runtime: The enclave's init; ``None``: the one that came with this package.
    """

    toml: config.EnclaveToml
    context: pathlib.Path
    output: pathlib.Path
    record: pathlib.Path
    build_args: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    now: dt.datetime
    tool_version: str
    runtime: bytes | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was built.

    Args:
        pcrs: Its registers.
        size: Length of the EIF, in bytes.
        memory_needed: Least memory of its enclave, in bytes.
        service_port: Port that the user process is expected on.
        warnings: What the user should know.
        left_out: Files of the context that were asked for and are never copied.
    """

    pcrs: Pcrs
    size: int
    memory_needed: int
    service_port: int
    warnings: list[str]
    left_out: list[str]


def build_image(request: Request, step: Step) -> Built:
    """Builds an image, writes it and its record, and its PCRs into ``enclave.toml``.

    Args:
        request: What to build.
        step: Told about each stage.

    Raises:
        MissingInput: A file is not there: Dockerfile, signing pair, runtime.
        KeyFileError: The signing pair is wrong.
        MalformedImage: The Dockerfile or a file of the context cannot be used.
        ConfigError: Several EXPOSE, a reserved port, too little memory, no uuids.
        OutputError: Something cannot be written; what was there before is still there.
    """
    toml = request.toml
    if toml.kernel.image is not None:
        raise ConfigError(
            f"{toml.path}: `[kernel] image` is set, and this version puts no kernel into an image",
            hint="remove it: the image is for the sandbox then",
        )
    signing = _signing(toml, request.now)
    init = request.runtime if request.runtime is not None else runtime.enclave_binary()
    with step(f"files of `{toml.dockerfile}`"):
        options = Options(build_args=request.build_args, private=_private(request))
        image = dockerfile.run(toml.beside(toml.dockerfile), request.context, options)
    exposed = [port for port, protocol in image.config.exposed if protocol == "tcp"]
    attested = toml.attested(service_port=_service_port(toml, exposed))
    boot, application = boot_tree(init), application_tree(image, attested)
    sizes = cpio.size(boot), cpio.size(application)
    needed = memory_needed(sum(sizes))
    _check_memory(toml, needed)
    about = metadata.encode(
        name=toml.name,
        version="1",
        built_at=request.epoch,
        tool_version=request.tool_version,
        docker=image.config.inspected() | {"Architecture": options.architecture, "Os": "linux"},
        custom={"cloister": {"kernel": None, "runners": ["sandbox"]}},
    )
    sections = [
        Payload.of(Kind.METADATA, about),
        Payload(Kind.RAMDISK, sizes[0], cpio.write(boot, mtime=request.epoch)),
        Payload(Kind.RAMDISK, sizes[1], cpio.write(application, mtime=request.epoch)),
    ]
    with step(f"image `{request.output}`"), _new_file(request.output) as file:
        pcrs = write(
            file,
            sections,
            memory=toml.resources.memory,
            cpus=toml.resources.cpus,
            signing=signing,
        )
    size = request.output.stat().st_size
    replace(request.record, image.record.encode())
    if toml.path is not None:
        write_pcrs(toml.path, pcrs)
    return Built(
        pcrs=pcrs,
        size=size,
        memory_needed=needed,
        service_port=attested["service"]["port"],
        warnings=image.warnings,
        left_out=image.left_out,
    )


def boot_tree(init: bytes) -> Tree:
    """Ramdisk 0: ``/init``, and nothing else."""
    tree = Tree()
    tree.put(b"init", File(mode=0o755, content=Bytes(init)))
    return tree


def application_tree(image: BuiltImage, attested: dict[str, Any]) -> Tree:
    """Ramdisk 1: the image's files below ``/rootfs``, and what the enclave is told about itself."""
    tree = Tree()
    tree.put(b"cloister", Directory(mode=0o755))
    for name, value in (("config", attested), ("process", image.config.process())):
        content = Bytes(config.canonical_json(value))
        tree.put(b"cloister/%s.json" % name.encode(), File(mode=0o644, content=content))
    tree.put(b"rootfs", Directory(mode=0o755))
    for path, node in image.tree:
        tree.put(b"rootfs/" + path, node)
    return tree


def memory_needed(ramdisks: int) -> int:
    """Least memory of an enclave whose ramdisks have this many bytes, in whole MiB.

    The ramdisks are in memory packed and unpacked, and the tmpfs they are unpacked into is limited
    to half of it: four times as much, which is AWS's own rule, and :data:`BASE_MEMORY` at least.
    """
    whole = -(-max(4 * ramdisks, BASE_MEMORY) // MIB)
    return whole * MIB


def write_pcrs(toml: pathlib.Path, pcrs: Pcrs) -> None:
    """Writes the registers into ``[attestation]``; a register that is not there any more goes.

    Raises:
        OutputError: The file cannot be written; it is as it was.
    """
    with config.edit(toml) as editor:
        editor.set("attestation", "HashAlgorithm", to="SHA384")
        shown = pcrs.shown()
        for name in ("PCR0", "PCR1", "PCR2", "PCR8"):
            if name in shown:
                editor.set("attestation", name, to=shown[name])
            else:
                editor.remove("attestation", name)


def _service_port(toml: config.EnclaveToml, exposed: list[int]) -> int | None:
    if toml.service.port is not None or not exposed:
        return None
    if len(exposed) > 1:
        listed = ", ".join(str(port) for port in sorted(exposed))
        raise ConfigError(
            f"{toml.path}: the image exposes several ports ({listed}), `[service] port` names none",
            hint=f"add the one that takes requests: [service] port = {min(exposed)}",
        )
    return exposed[0]


def _check_memory(toml: config.EnclaveToml, needed: int) -> None:
    if toml.resources.memory < needed:
        raise ConfigError(
            f"{toml.path}: `[resources] memory` is {as_size(toml.resources.memory)}, this image"
            f" needs {as_size(needed)}: its files are in memory twice",
            hint=f'set memory = "{as_size(needed)}" in [resources]',
        )


def _signing(toml: config.EnclaveToml, now: dt.datetime) -> SigningPair | None:
    certificate, key = toml.signing.cert_path, toml.signing.key_path
    if certificate is None or key is None:
        return None
    return SigningPair.load(toml.beside(certificate), toml.beside(key), now=now)


def _private(request: Request) -> frozenset[pathlib.Path]:
    """What must never be in an image: what a build writes, and keys."""
    toml = request.toml
    paths = [request.output, request.record, toml.beside(".cloister")]
    paths += [request.context / ".cloister"]
    if toml.path is not None:
        paths.append(toml.path)
    if toml.signing.key_path is not None:
        paths.append(toml.beside(toml.signing.key_path))
    return frozenset(paths)


@contextlib.contextmanager
def _new_file(path: pathlib.Path) -> Iterator[Any]:
    """A file that takes its place when the block ends well, and leaves nothing when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        raise OutputError(f"cannot write `{path}`: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


MIB = 1 << 20
BASE_MEMORY = 64 * MIB
"""What init and the data plane take before the image, with room for their buffers."""
