"""The programs of a run: started on their CPUs, waited for, ended.

Nothing here knows what a program is for; :mod:`bench.load.proxies` does.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

from bench.load.cpu import Account


@contextlib.contextmanager
def running(name: str, command: list[str], port: int, cpus: str) -> Iterator[Account]:
    """Starts a program on ``cpus``, waits until its port accepts, and ends it.

    Args:
        name: What its account is called.
        command: Program and arguments.
        port: On 127.0.0.1.
        cpus: As ``taskset -c`` takes them.

    Raises:
        SystemExit: It ended, or did not accept within 30 s.
    """
    account = Account(name)
    process = subprocess.Popen(
        ["taskset", "-c", cpus, *command],
        start_new_session=True,
        preexec_fn=account.enter,  # noqa: PLW1509 - this process has one thread
    )
    account.pid = process.pid
    try:
        deadline = time.monotonic() + 30
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}")
            time.sleep(0.05)
        yield account
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        account.close()


def output(command: list[str], cpus: str) -> str:
    """What a program prints on ``cpus``; it must succeed.

    Raises:
        SystemExit: It failed; with what it said.
    """
    done = subprocess.run(
        ["taskset", "-c", cpus, *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
