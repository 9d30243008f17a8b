"""Any bytes as a layer of an image: walked, merged, and made a ramdisk.

Checksums of heads are put right first, as far as heads can be recognized. Whatever is merged makes
a ramdisk that our strict reader takes, with the paths of the tree: no entry leads out of it, and
none can be read differently later.
"""

import os
import sys
import tarfile

import atheris

with atheris.instrument_imports(include=["cloister", "tarfile"]):
    from cloister.build import cpio
    from cloister.build.content import Backing
    from cloister.build.ramdisk import Ramdisk
    from cloister.build.sources import ustar
    from cloister.build.sources.archive import walk
    from cloister.build.sources.limits import Budget, Limits
    from cloister.build.sources.merge import Merging
    from cloister.errors import MalformedImage

from tar_heads import BLOCK, repaired

LIMITS = Limits(entries=1000, unpacked=1 << 20, header=1 << 16)


def one(data: bytes) -> None:
    """One input: two layers, cut where the first byte says."""
    if not data:
        return
    data, cut = repaired(data[1:]), BLOCK * data[0]
    plain_heads(data)
    merging, budget = Merging(), Budget(LIMITS)
    try:
        for layer in (data[:cut], data[cut:]):
            if layer:
                merging.add(walk(in_memory(layer).whole(), budget), "the layer")
        ramdisk = Ramdisk.of(merging.tree)
        if ramdisk.size > LIMITS.unpacked:
            return
        packed = b"".join(ramdisk.blocks())
    except MalformedImage:
        return
    assert len(packed) == ramdisk.size, "a ramdisk of another length than it said"
    found = [entry.path for entry in cpio.read(packed)]
    assert found == [path for path, _ in merging.tree], "a ramdisk that is not the tree"


def plain_heads(data: bytes) -> None:
    """Heads that are read fast say what the library says of them."""
    heads = ustar.Heads(in_memory(data).whole())
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        head = heads.read(at)
        if head is None:
            continue
        other = tarfile.TarInfo.frombuf(data[at : at + BLOCK], "utf-8", "surrogateescape")
        name, link = (os.fsencode(text) for text in (other.name, other.linkname))
        # The library takes the slash of a folder's name away.
        assert head.name.rstrip(b"/") == name.rstrip(b"/"), "another name"
        assert head.link == link, "another target"
        assert head.mode == other.mode & 0o7777, "another mode"
        assert (head.uid, head.gid, head.mtime) == (other.uid, other.gid, other.mtime)
        assert head.size == (other.size if other.isreg() else 0), "another length"


def in_memory(data: bytes) -> Backing:
    """A file of these bytes, without a name."""
    fd = os.memfd_create("layer", os.MFD_CLOEXEC)
    os.write(fd, data)
    return Backing(fd, "layer")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
