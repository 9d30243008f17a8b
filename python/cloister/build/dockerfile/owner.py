"""``--chown`` and USER: numbers, or names that the image's own passwd and group know."""

import re

from cloister.build.rootfs import File, Tree
from cloister.errors import MalformedImage


def owner(tree: Tree, text: str, what: str = "--chown") -> tuple[int, int]:
    """User and group id of a ``user[:group]``.

    Args:
        tree: The files of the image.
        text: The owner.
        what: Where it is written, for messages.

    Without a group it is, for a number, the same number, and for a name the group that passwd has
    for it. The Dockerfile reference (COPY --chown) says the first for both; BuildKit does this, and
    it is followed.

    Raises:
        MalformedImage: No such name in the image, or a number that is too large.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise MalformedImage(f"{what}={text[:40]}: expected user or user:group, as in 1000:1000")
    try:
        uid, gid = _ids(tree, user, "etc/passwd", "user")
        return uid, _ids(tree, group, "etc/group", "group")[0] if colon else gid
    except MalformedImage as problem:
        raise MalformedImage(f"{what}: {problem.message}", hint=problem.hint) from None


def _ids(tree: Tree, name: str, file: str, what: str) -> tuple[int, int]:
    """The number of a name, and the one behind it in the file."""
    if re.fullmatch(r"[0-9]{1,10}", name):
        return _checked(name, what), _checked(name, what)
    node = tree.node(tree.resolve(file.encode()))
    if isinstance(node, File) and node.content.size <= MAX_BYTES:
        lines = b"".join(node.content.blocks()).decode("utf-8", "replace").splitlines()
        for line in lines:
            fields = [*line.split(":"), "", "", ""]
            first, second = fields[ID_FIELD : ID_FIELD + 2]
            if fields[0] == name and first.isascii() and first.isdecimal():
                is_number = second.isascii() and second.isdecimal()
                return _checked(first, what), _checked(second, what) if is_number else 0
    raise MalformedImage(
        f"there is no {what} {name[:40]!r} in /{file} of the image",
        hint="COPY that file first, or give a number",
    )


def _checked(number: str, what: str) -> int:
    if int(number[:MAX_DIGITS]) > MAX_ID:
        raise MalformedImage(f"{what} {number[:MAX_DIGITS]} is larger than {MAX_ID}")
    return int(number)


MAX_DIGITS = 20
ID_FIELD = 2
"""Of passwd(5) and group(5)."""
MAX_ID = 0xFFFF_FFFE
MAX_BYTES = 1 << 20
