"""``--chown``: numbers, or names that the image's own passwd and group know."""

import re

from cloister.build.rootfs import File, Tree
from cloister.errors import MalformedImage


def owner(tree: Tree, text: str) -> tuple[int, int]:
    """User and group id of a ``user[:group]``.

    Without a group, it has the number of the user (Dockerfile reference, COPY --chown); with a name
    for the user, the number is looked up, and the group too.

    Raises:
        MalformedImage: No such name in the image, or a number that is too large.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise MalformedImage(f"--chown={text[:40]}: expected user or user:group, as in 1000:1000")
    uid = _number(tree, user, "etc/passwd", "user")
    return uid, _number(tree, group, "etc/group", "group") if colon else uid


def _number(tree: Tree, name: str, file: str, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", name):
        number = int(name)
        if number > MAX_ID:
            raise MalformedImage(f"--chown: {what} {number} is larger than {MAX_ID}")
        return number
    node = tree.node(tree.resolve(file.encode()))
    if isinstance(node, File) and node.content.size <= MAX_BYTES:
        lines = b"".join(node.content.blocks()).decode("utf-8", "replace").splitlines()
        for line in lines:
            fields = line.split(":")
            if fields[0] == name and len(fields) > ID_FIELD and fields[ID_FIELD].isdecimal():
                return int(fields[ID_FIELD])
    raise MalformedImage(
        f"--chown: there is no {what} {name[:40]!r} in /{file} of the image",
        hint="COPY that file first, or give a number",
    )


ID_FIELD = 2
"""Of passwd(5) and group(5)."""
MAX_ID = 0xFFFF_FFFE
MAX_BYTES = 1 << 20
