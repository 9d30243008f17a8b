"""Whether the program that an image is to run is in it: better said at build than at boot."""

import os
import posixpath

from cloister.build.image_config import ImageConfig
from cloister.build.rootfs import Directory, Tree, shown
from cloister.errors import MalformedImage


def check_command(tree: Tree, config: ImageConfig) -> None:
    """Looks the program up as the enclave's init will.

    Raises:
        MalformedImage: It is not in the image, is a folder, or nobody may execute it.
    """
    if not config.argv:
        return
    program = config.argv[0]
    if "/" in program:
        tried = [program]
    else:
        folders = config.env.get("PATH", "").split(":")
        tried = [f"{folder or '.'}/{program}" for folder in folders]
    for path in tried:
        absolute = os.fsencode(posixpath.join(config.cwd, path))
        node = tree.node(tree.resolve(absolute))
        if node is None or isinstance(node, Directory):
            continue
        # Not even root executes a file that nobody may execute (capabilities(7)).
        if not node.mode & 0o111:
            raise MalformedImage(
                f"`{shown(os.fsencode(program))}`, which the image is to run, is not executable",
                hint="chmod +x in the context, or COPY --chmod=755",
            )
        return
    raise MalformedImage(
        f"`{shown(os.fsencode(program))}`, which the image is to run, is not in the image",
        hint="the shell form of ENTRYPOINT and CMD needs a shell: use the exec form"
        if config.argv[: len(SHELL)] == SHELL
        else "COPY it, or name it by its path in the image",
    )


SHELL = ["/bin/sh", "-c"]
