"""Names of files for people and for programs: whole, and without what a terminal would obey.

Messages cut a name (:func:`cloister.build.rootfs.shown`); a listing must not, or two files of one
deep folder would be one.
"""


def spelled(path: bytes) -> str:
    """A path, or the target of a link, printable, whatever its bytes are."""
    text = path.decode("utf-8", errors="backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
