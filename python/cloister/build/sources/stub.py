"""Empty files that a container builder leaves where it mounted its own.

While a line of a Dockerfile runs, ``/etc/hosts`` and two others are the builder's. buildah and
podman mount them over an empty file, which they make when there is none, and the file stays in the
image; Docker leaves nothing. Nobody reads an empty one: Docker and podman mount theirs over it when
the image runs. In an enclave it would be read, so ``localhost`` would have no address. Without it
the enclave's init makes a right one, and the builders agree on the image.
"""

from cloister.build.rootfs import File, Tree


def remove_stubs(tree: Tree) -> None:
    """Takes the empty ones of :data:`MOUNTED` away; one with contents is the image's own."""
    for path in MOUNTED:
        node = tree.node(path)
        if type(node) is File and node.content.size == 0:
            tree.remove(path)


MOUNTED = (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf")
"""What every container gets (moby, daemon/container_operations_unix.go; buildah, run_linux.go)."""
