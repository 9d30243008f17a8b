"""Large saved images, written as a stream: many files, big files, files with holes.

The same arguments give the same bytes on every machine. Nothing is held in memory but a pool that
contents are cut from: half of it random, half of it text, so that it packs as programs and
documents do. The layout is that of ``docker save`` before Docker 25, layers not compressed.
"""

import dataclasses
import gzip
import hashlib
import json
import pathlib
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What a layer is made of.

    Args:
        files: Number of small files, a few hundred bytes to some dozens of KiB each.
        small: Bytes of all of them together, about.
        big: Sizes of its big files, in bytes.
        seed: What the layer is called, and where its randomness starts.
    """

    files: int
    small: int = 0
    big: tuple[int, ...] = ()
    seed: str


DEBIAN_LIKE = (
    Mix(files=3200, small=55 * 10**6, big=(12 * 10**6, 5 * 10**6, 2 * 10**6), seed="base"),
    Mix(files=3600, small=40 * 10**6, big=(14 * 10**6, 6 * 10**6), seed="interpreter"),
    Mix(files=1900, small=26 * 10**6, big=(30 * 10**6, 8 * 10**6), seed="dependencies"),
    Mix(files=60, small=10**6, big=(10**6,), seed="application"),
)
"""About 200 MB: a distribution, an interpreter, its packages, an application."""


def save(path: pathlib.Path, layers: Sequence[Mix]) -> pathlib.Path:
    """Writes an image.

    Args:
        path: The archive.
        layers: From the lowest up.
    """
    pool = _pool()
    with path.open("wb") as out:
        names, digests = [], []
        for mix in layers:
            names.append(f"{hashlib.sha256(mix.seed.encode()).hexdigest()}/layer.tar")
            digests.append(_layer(out, names[-1], lambda layer, mix=mix: _fill(layer, mix, pool)))  # type: ignore[misc]
        _finish(out, names, digests)
    return path


def save_files(
    path: pathlib.Path, files: Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]
) -> pathlib.Path:
    """Writes an image of one layer with these entries, each with what its content is read from."""
    with path.open("wb") as out:

        def fill(layer: tarfile.TarFile) -> None:
            for info, content in files:
                layer.addfile(info, content)
                layer.members.clear()  # type: ignore[attr-defined]

        name = f"{0:064x}/layer.tar"
        _finish(out, [name], [_layer(out, name, fill)])
    return path


def gzipped(path: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """The same archive, packed as ``docker save | gzip`` does."""
    with path.open("rb") as source, to.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as out:
        while block := source.read(1 << 20):
            out.write(block)
    return to


class Repeated:
    """A file of so many bytes that is a few bytes again and again."""

    def __init__(self, piece: bytes, size: int) -> None:
        self._piece = piece
        self._size = size
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, exactly as many as there are."""
        wanted = self._size - self._at
        wanted = wanted if size < 0 else min(size, wanted)
        first = self._at % len(self._piece)
        taken = self._piece[first : first + wanted]
        while len(taken) < wanted:
            taken += self._piece[: wanted - len(taken)]
        self._at += wanted
        return taken


def _fill(layer: tarfile.TarFile, mix: Mix, pool: bytes) -> None:
    chance = random.Random(mix.seed)  # noqa: S311 - the same on every machine
    folders = [f"usr/{mix.seed}"]
    for name in ("usr", folders[0]):
        layer.addfile(_info(name, tarfile.DIRTYPE, mode=0o755))
    weights = [chance.lognormvariate(0, 1.6) for _ in range(mix.files)]
    share = mix.small / max(sum(weights), 1)
    for number, weight in enumerate(weights):
        if number % 9 == 0:
            # Most paths are of 40 to 90 bytes, and about one in twenty is longer than a plain head
            # can say.
            above = folders[0] if number % 72 == 0 else chance.choice(folders[-24:])
            above = folders[0] if len(above) > MAX_FOLDER else above
            folders.append(f"{above}/folder-{number}")
            layer.addfile(_info(folders[-1], tarfile.DIRTYPE, mode=0o755))
        name = f"{chance.choice(folders[-40:])}/some-file-{number}.{chance.choice(ENDINGS)}"
        _add(layer, name, int(weight * share), pool, chance)
        if number % 15 == 0:
            layer.addfile(_info(f"{name}.link", tarfile.SYMTYPE, link=name.rpartition("/")[2]))
        if number % 400 == 0:
            layer.addfile(_info(f"{name}.same", tarfile.LNKTYPE, link=name))
        layer.members.clear()  # type: ignore[attr-defined]
    for number, size in enumerate(mix.big):
        _add(layer, f"{folders[0]}/big-{number}.so", size, pool, chance)
    _add(layer, "app", 1000, pool, chance)


def _add(layer: tarfile.TarFile, name: str, size: int, pool: bytes, chance: random.Random) -> None:
    info = _info(name, tarfile.REGTYPE, mode=chance.choice((0o644, 0o644, 0o755)))
    info.size = size
    at = chance.randrange(len(pool) // 2)
    layer.addfile(
        info, Repeated(pool[at:] if size > len(pool) - at else pool[at : at + size], size)
    )


def _info(name: str, kind: bytes, *, mode: int = 0o777, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.mtime = kind, mode, link, 1_600_000_000
    return info


def _pool() -> bytes:
    chance = random.Random("pool")  # noqa: S311 - the same on every machine
    words = [chance.randbytes(chance.randrange(2, 6)).hex() for _ in range(2000)]
    pieces = []
    for _ in range(64):
        pieces.append(chance.randbytes(POOL_BYTES // 128))
        text = " ".join(chance.choices(words, k=POOL_BYTES // 128 // 6))
        pieces.append(text.encode())
    return b"".join(pieces)


def _layer(out: IO[bytes], name: str, fill: Callable[[tarfile.TarFile], object]) -> str:
    """Adds a layer to the outer archive; its head is written when its length is known."""
    head = out.tell()
    out.write(bytes(tarfile.BLOCKSIZE))
    writing = _Hashed(out)
    with tarfile.TarFile(
        fileobj=writing,  # type: ignore[arg-type]
        mode="w",
        format=tarfile.PAX_FORMAT,
        copybufsize=1 << 20,
    ) as layer:
        fill(layer)
    info = tarfile.TarInfo(name)
    info.size = writing.size
    out.seek(head)
    out.write(info.tobuf(tarfile.GNU_FORMAT))
    out.seek(0, 2)
    out.write(bytes(-writing.size % tarfile.BLOCKSIZE))
    return f"sha256:{writing.digest.hexdigest()}"


class _Hashed:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self.size


def _finish(out: IO[bytes], names: list[str], digests: list[str]) -> None:
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    raw = json.dumps(document).encode()
    config = f"{hashlib.sha256(raw).hexdigest()}.json"
    manifest = [{"Config": config, "RepoTags": ["large:latest"], "Layers": names}]
    for name, data in ((config, raw), ("manifest.json", json.dumps(manifest).encode())):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        out.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))


ENDINGS = ("py", "so", "txt", "conf", "h", "mo", "pyc", "list")
POOL_BYTES = 32 << 20
MAX_FOLDER = 70
