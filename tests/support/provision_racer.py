"""A platform in a process of its own, which provisions from documents as fast as it can.

``python -m tests.support.provision_racer FOLDER URL ROOT UUID TIME``: says ``ready``, reads lines
of hexadecimal documents, and answers each with ``released`` or the reason why not.
"""

import datetime as dt
import pathlib
import sys

from cloister.errors import CloisterError
from cloister.platform import database as databases
from cloister.platform.embedded import EmbeddedPlatform
from cloister.platform.engines import database_url
from cloister.platform.trust_class import TrustClass


def main() -> None:
    folder, url, root, enclave, time = sys.argv[1:]
    database = databases.open_existing(
        pathlib.Path(folder), TrustClass.DEVELOPMENT, url=database_url(url) if url else None
    )
    platform = EmbeddedPlatform(
        database,
        development_root=pathlib.Path(root),
        clock=lambda: dt.datetime.fromisoformat(time),
    )
    say("ready")
    for line in sys.stdin:
        try:
            platform.provision(enclave, bytes.fromhex(line))
            say("released")
        except CloisterError as problem:
            say(problem.message)


def say(line: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
