"""From a request to an EIF: the whole of ``cloister build``.

Nothing of the output appears before all of it is there: the image is written beside its place and
renamed, then the record, then the PCRs in ``enclave.toml``. An image that was built before is taken
from the cache, when its checksum is right.
"""

import dataclasses
import datetime as dt
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from cloister import config
from cloister.build import cache as caching
from cloister.build import runtime
from cloister.build.cache import About, Cache, Entry
from cloister.build.command import check_command
from cloister.build.content import Backing, Slice
from cloister.build.eif import Kind, Payload, Pcrs, SigningPair, metadata, open_eif, write
from cloister.build.eif.layout import HEADER_BYTES, SECTION_BYTES
from cloister.build.image_config import ImageConfig
from cloister.build.kernel import ChosenKernel, KernelStore, Module, choose_kernel
from cloister.build.memory import check_memory, memory_needed
from cloister.build.obtain import Obtained, obtain
from cloister.build.progress import Progress
from cloister.build.ramdisk import Fragment, Ramdisk, Records
from cloister.build.request import Request
from cloister.build.rootfs import Bytes, Directory, File, Node, Tree
from cloister.build.volume import check_volumes
from cloister.build.whole_file import link_or_copy, new_file, replacing, scratch
from cloister.errors import ConfigError, MalformedImage
from cloister.replacing import replace


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was built.

    Args:
        pcrs: Name and value of its registers, in hexadecimal.
        size: Length of the EIF, in bytes.
        memory_needed: Least memory of its enclave, in bytes.
        service_port: Port that the user process is expected on.
        kernel: Release of its kernel; ``None``: it has none.
        runners: Whom it is for.
        builder: What built the image's files.
        reused: What was taken from the cache: ``nothing``, ``files`` or ``image``.
        warnings: What the user should know.
        left_out: Files of the context that were asked for and are never copied.
    """

    pcrs: dict[str, str]
    size: int
    memory_needed: int
    service_port: int
    kernel: str | None
    runners: tuple[str, ...]
    builder: str
    reused: str
    warnings: list[str]
    left_out: list[str]


def build_image(request: Request, progress: Progress) -> Built:
    """Builds an image, writes it and its record, and its PCRs into ``enclave.toml``.

    Args:
        request: What to build.
        progress: Told about each stage.

    Raises:
        MissingInput: A file is not there: Dockerfile, image, kernel, signing pair, runtime.
        KeyFileError: The signing pair is wrong.
        BuildFailed: A builder ended with an error.
        MalformedImage: Dockerfile, image, kernel or a file of the context cannot be used.
        ConfigError: Several EXPOSE, a reserved port, too little memory, no uuids, a kernel that
            no enclave starts with.
        OutputError: Something cannot be written; what was there before is still there.
    """
    toml = request.toml
    if request.architecture != RUNTIME_ARCHITECTURE:
        raise ConfigError(
            f"this package has the enclave's program for linux/{RUNTIME_ARCHITECTURE} alone,"
            f" expected one for linux/{request.architecture}",
            hint="build on a machine of that architecture",
        )
    parts = _Parts(
        init=request.runtime if request.runtime is not None else runtime.enclave_binary(),
        kernel=choose_kernel(toml, KernelStore(request.kernels)),
        signing=_signing(toml, request.now),
    )
    cache = Cache(request.cache_folder)
    with (
        scratch(request.toml.beside(".cloister/build")) as folder,
        obtain(request, cache, folder, progress) as obtained,
    ):
        return _Assembling(request, obtained, cache, parts).whole(progress)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What goes into an image beside the user's files."""

    init: bytes
    kernel: ChosenKernel | None
    signing: SigningPair | None

    @property
    def kernel_size(self) -> int:
        return 0 if self.kernel is None else self.kernel.size

    @property
    def runners(self) -> tuple[str, ...]:
        return ("sandbox",) if self.kernel is None else self.kernel.runners


class _Assembling:
    """One image on its way from files and settings to an EIF."""

    def __init__(
        self,
        request: Request,
        obtained: Obtained,
        cache: Cache,
        parts: _Parts,
    ) -> None:
        self._request = request
        self._obtained = obtained
        self._cache = cache
        self._parts = parts
        kernel, signing = parts.kernel, parts.signing
        modules = () if kernel is None else kernel.modules
        self._boot = Ramdisk.of(boot_tree(parts.init, modules), epoch=request.epoch)
        toml, settings = request.toml, obtained.config
        exposed = [port for port, protocol in settings.exposed if protocol == "tcp"]
        self._attested = toml.attested(service_port=_service_port(toml, exposed))
        process = settings.process(with_healthcheck=toml.healthcheck is None)
        self._said = Records.of(said_tree(self._attested, process), epoch=request.epoch)
        self._metadata = metadata.encode(
            name=toml.name,
            version="1",
            built_at=request.epoch,
            tool_version=request.tool_version,
            kernel_version=None if kernel is None else kernel.version,
            docker=settings.inspected() | {"Architecture": request.architecture, "Os": "linux"},
            custom={
                "cloister": {
                    "kernel": None if kernel is None else kernel.described(),
                    "runners": parts.runners,
                }
            },
        )
        self._left_out: list[str] = []
        self._warnings: list[str] = []
        self._files_key = caching.key(
            {
                "format": CACHE_FORMAT,
                "image": obtained.identity,
                "epoch": request.epoch,
                "first_inode": self._said.last_inode + 1,
            }
        )
        self._whole_key = caching.key(
            {
                "boot": hashlib.sha256(parts.init).hexdigest(),
                "kernel": None if kernel is None else kernel.described(),
                "config": self._attested,
                "process": process,
                "metadata": self._metadata.hex(),
                "resources": [toml.resources.memory, toml.resources.cpus],
                "signed": None if signing is None else signing.certificate_der.hex(),
            }
        )

    def whole(self, progress: Progress) -> Built:
        obtained = self._obtained
        entry = None
        if obtained.identity is not None:
            entry = self._checked(self._cache.find(self._files_key, self._whole_key), progress)
        if entry is not None and entry.is_same:
            return self._same(entry)
        records: Fragment
        if entry is not None:
            records, last_inode = _records(entry), entry.about.last_inode
            self._warnings = entry.about.warnings
        else:
            image = obtained.load(progress)
            self._warnings, self._left_out = image.warnings, image.left_out
            check_command(image.tree, image.config)
            check_volumes(image.tree, image.config)
            made = Records.of(
                rootfs_entries(image.tree),
                epoch=self._request.epoch,
                first_inode=self._said.last_inode + 1,
            )
            records, last_inode = made, made.last_inode
        return self._written(records, last_inode, progress, reused="files" if entry else "nothing")

    def _checked(self, entry: Entry | None, progress: Progress) -> Entry | None:
        """An entry whose checksum is right; a damaged one goes."""
        if entry is None:
            return None
        try:
            size = entry.path.stat().st_size
            with (
                progress.stage("image from the cache, checked", size=size) as advanced,
                open_eif(entry.path),
            ):
                advanced(size)
                return entry
        except (MalformedImage, OSError):
            self._cache.forget(entry.path)
            return None

    def _same(self, entry: Entry) -> Built:
        output = self._request.output
        ramdisks = self._boot.size + Ramdisk([self._said, _records(entry)]).size
        self._check_memory(ramdisks)
        try:
            is_there = output.exists() and output.samefile(entry.path)
        except OSError:
            is_there = False
        if not is_there:
            with replacing(output) as temporary:
                link_or_copy(entry.path, temporary)
        self._warnings = entry.about.warnings
        return self._ended(entry.about.pcrs, ramdisks, reused="image")

    def _written(
        self, records: Fragment, last_inode: int, progress: Progress, *, reused: str
    ) -> Built:
        request, toml = self._request, self._request.toml
        application = Ramdisk([self._said, records])
        ramdisks = self._boot.size + application.size
        self._check_memory(ramdisks)
        sections = _kernel_sections(self._parts.kernel)
        sections += [
            Payload.of(Kind.METADATA, self._metadata),
            Payload(Kind.RAMDISK, self._boot.size, self._boot.blocks()),
            Payload(Kind.RAMDISK, application.size, application.blocks()),
        ]
        size = sum(section.size for section in sections)
        with (
            progress.stage(f"image `{request.output}`", size=size) as advanced,
            new_file(request.output) as file,
        ):
            pcrs = write(
                file,
                sections,
                memory=toml.resources.memory,
                cpus=toml.resources.cpus,
                signing=self._parts.signing,
                advanced=advanced,
            )
        if self._obtained.identity is not None:
            self._keep(pcrs, records.size, last_inode)
        return self._ended(pcrs.shown(), ramdisks, reused=reused)

    def _keep(self, pcrs: Pcrs, size: int, last_inode: int) -> None:
        before = [section.size for section in _kernel_sections(self._parts.kernel)]
        before += [len(self._metadata), self._boot.size]
        start = HEADER_BYTES + sum(SECTION_BYTES + section for section in before)
        start += SECTION_BYTES + self._said.size
        about = About(
            offset=start,
            size=size,
            last_inode=last_inode,
            pcrs=pcrs.shown(),
            warnings=self._warnings,
        )
        self._cache.keep(self._request.output, self._files_key, self._whole_key, about)

    def _ended(self, pcrs: dict[str, str], ramdisks: int, *, reused: str) -> Built:
        request, toml = self._request, self._request.toml
        replace(request.record, self._obtained.record.encode())
        if toml.path is not None:
            write_pcrs(toml.path, pcrs)
        return Built(
            pcrs=pcrs,
            size=request.output.stat().st_size,
            memory_needed=memory_needed(ramdisks, kernel=self._parts.kernel_size),
            service_port=self._attested["service"]["port"],
            kernel=None if self._parts.kernel is None else self._parts.kernel.version,
            runners=self._parts.runners,
            builder=self._obtained.builder,
            reused=reused,
            warnings=[
                *self._warnings,
                *(() if self._parts.kernel is None else self._parts.kernel.warnings),
                *_said_about(toml, self._obtained.config),
            ],
            left_out=self._left_out,
        )

    def _check_memory(self, ramdisks: int) -> None:
        needed = memory_needed(ramdisks, kernel=self._parts.kernel_size)
        check_memory(self._request.toml, needed)


def said_tree(attested: dict[str, Any], process: dict[str, Any]) -> Tree:
    """What the enclave is told about itself: the first entries of ramdisk 1."""
    tree = Tree()
    tree.put(b"cloister", Directory(mode=0o755))
    for name, value in (("config", attested), ("process", process)):
        content = Bytes(config.canonical_json(value))
        tree.put(b"cloister/%s.json" % name.encode(), File(mode=0o644, content=content))
    return tree


def rootfs_entries(tree: Tree) -> Iterator[tuple[bytes, Node]]:
    """The image's files, below ``rootfs``: the other entries of ramdisk 1."""
    yield b"rootfs", tree.root
    for path, node in tree:
        yield b"rootfs/" + path, node


def boot_tree(init: bytes, modules: Sequence[Module] = ()) -> Tree:
    """Ramdisk 0: ``/init``, and the modules that it has to load, where it looks for them."""
    tree = Tree()
    tree.put(b"init", File(mode=0o755, content=Bytes(init)))
    if modules:
        tree.put(b"modules", Directory(mode=0o755))
    for module in modules:
        content = Bytes(module.content)
        tree.put(b"modules/%s.ko" % module.name.encode(), File(mode=0o644, content=content))
    return tree


def _kernel_sections(kernel: ChosenKernel | None) -> list[Payload]:
    if kernel is None:
        return []
    return [Payload.of(Kind.KERNEL, kernel.image), Payload.of(Kind.CMDLINE, kernel.cmdline)]


def write_pcrs(toml: pathlib.Path, pcrs: dict[str, str]) -> None:
    """Writes the registers into ``[attestation]``; a register that is not there any more goes.

    Raises:
        OutputError: The file cannot be written; it is as it was.
    """
    with config.edit(toml) as editor:
        editor.set("attestation", "HashAlgorithm", to="SHA384")
        for name in ("PCR0", "PCR1", "PCR2", "PCR8"):
            if name in pcrs:
                editor.set("attestation", name, to=pcrs[name])
            else:
                editor.remove("attestation", name)


def _said_about(toml: config.EnclaveToml, settings: ImageConfig) -> list[str]:
    """What of an image's settings is not what it would be in Docker, or decides what runs."""
    found = []
    mounted = settings.mounted_volumes
    if mounted:
        found.append(
            f"VOLUME {', '.join(mounted)}: a tmpfs with the image's files in it, a quarter of the"
            " enclave's memory for all volumes together, gone with the enclave"
        )
    left_out = [path for path in settings.volume_paths if path not in mounted]
    if left_out:
        found.append(
            f"VOLUME {', '.join(left_out)} is left out: /dev, /proc and /sys are the kernel's"
        )
    if settings.healthcheck is not None and toml.healthcheck is None:
        found.append(
            "HEALTHCHECK of the image decides whether the application is healthy: `healthcheck` is"
            " not set in enclave.toml"
        )
    return found


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


def _signing(toml: config.EnclaveToml, now: dt.datetime) -> SigningPair | None:
    certificate, key = toml.signing.cert_path, toml.signing.key_path
    if certificate is None or key is None:
        return None
    return SigningPair.load(toml.beside(certificate), toml.beside(key), now=now)


def _records(entry: Entry) -> Slice:
    """The records of an image's files, in an image that was built before."""
    return Backing.open(entry.path).whole().part(entry.about.offset, entry.about.size)


RUNTIME_ARCHITECTURE = "amd64"
CACHE_FORMAT = 2
"""Counted up when the same image is read in another way than before."""
