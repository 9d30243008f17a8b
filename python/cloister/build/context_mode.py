"""Permission bits of a file that comes from a folder of this machine.

A checkout has the bits that its user's umask left: 0644 or 0664, 0755 or 0775. None of that is part
of what is built, so one bit is kept, the one that version control keeps too: whether the owner may
execute it. ``COPY --chmod`` sets any other.
"""

import stat


def context_mode(mode: int) -> int:
    """The bits that a file of the context has in an image: 0755 or 0644, without set-id bits.

    Args:
        mode: Kind and bits, as stat(2) gives them.
    """
    return 0o755 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o644
