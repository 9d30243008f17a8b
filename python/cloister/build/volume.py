"""Whether a volume can be where an image says: better said at build than at boot."""

import os

from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Directory, Tree
from cloister.errors import MalformedImage


def check_volumes(tree: Tree, config: ImageConfig) -> None:
    """Looks each VOLUME up as the enclave's init will. One that is absent is made there.

    Raises:
        MalformedImage: There is something else than a folder, as Docker refuses it too.
    """
    for path in config.mounted_volumes:
        node = tree.node(tree.resolve(os.fsencode(path)))
        if node is not None and not isinstance(node, Directory):
            raise MalformedImage(f"VOLUME {path!r} is not a folder in the image")
