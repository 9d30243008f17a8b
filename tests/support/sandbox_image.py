"""Small enclave images and a launcher to start them with, for tests of the sandbox and of init.

The images hold the fixture init (its data plane is a script that starts the user process at once)
and one static program. They are written by hand and not by ``cloister.build``, so that a test can
make what the builder would refuse to make.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ROOT / "tests" / "vectors" / "config" / "enclave.json"
DIRECTORY, FILE, SYMLINK = 0o040000, 0o100000, 0o120000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One cpio record.

    Args:
        name: Relative path.
        mode: Kind and permission bits.
        data: Contents, or the target of a link.
        owner: User and group.
    """

    name: str
    mode: int = FILE | 0o755
    data: bytes = b""
    owner: int = 0


def cpio(entries: list[Entry]) -> bytes:
    """An uncompressed ``newc`` archive."""
    archive = bytearray()
    trailer = Entry(name="TRAILER!!!", mode=0)
    for inode, entry in enumerate([*entries, trailer], start=1):
        name = entry.name.encode() + b"\0"
        owner = entry.owner
        numbers = (inode, entry.mode, owner, owner, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        archive += bytes(-len(archive) % 4)
        archive += entry.data
        archive += bytes(-len(archive) % 4)
    return bytes(archive + bytes(-len(archive) % 512))


def eif(sections: list[tuple[int, bytes]]) -> bytes:
    """An EIF of these sections: (kind, payload)."""
    header = bytearray(548)
    header[:4] = b".eif"
    struct.pack_into(">HHQQHH", header, 4, 4, 0, 0, 0, 0, len(sections))
    body = bytearray()
    for index, (kind, payload) in enumerate(sections):
        struct.pack_into(">Q", header, 28 + 8 * index, len(header) + len(body))
        struct.pack_into(">Q", header, 284 + 8 * index, len(payload))
        body += struct.pack(">HHQ", kind, 0, len(payload)) + payload
    struct.pack_into(">I", header, 544, zlib.crc32(bytes(body), zlib.crc32(bytes(header[:544]))))
    return bytes(header + body)


def image(  # noqa: PLR0913 - one keyword for each thing an image says
    init: pathlib.Path,
    rootfs: list[Entry],
    *,
    argv: list[str],
    user: str = "",
    env: list[tuple[str, str]] | None = None,
    cwd: str = "/",
    debug: bool = False,
    config: dict[str, object] | None = None,
    process: dict[str, object] | None = None,
) -> bytes:
    """An image for the sandbox: ``init`` in the boot ramdisk, ``rootfs`` as the image's root.

    ``config`` and ``process`` are laid over what the two files would say otherwise.
    """
    attested = json.loads(CONFIG.read_bytes()) | {"debug": debug} | (config or {})
    runs = {
        "argv": argv,
        "env": env or [],
        "cwd": cwd,
        "user": user,
        "groups": [],
        "stop_signal": 15,
    } | (process or {})
    application = [
        Entry(name="cloister", mode=DIRECTORY | 0o755),
        Entry(name="cloister/config.json", mode=FILE | 0o644, data=json.dumps(attested).encode()),
        Entry(name="cloister/process.json", mode=FILE | 0o644, data=json.dumps(runs).encode()),
        Entry(name="rootfs", mode=DIRECTORY | 0o755),
        *rootfs,
    ]
    boot = cpio([Entry(name="init", data=init.read_bytes())])
    return eif([(2, b"console=ttyS0"), (5, b"{}"), (3, boot), (3, cpio(application))])


class Launched:
    """A running launcher: its status lines, its console, its end."""

    def __init__(
        self, process: subprocess.Popen[bytes], status_fd: int, run_dir: pathlib.Path
    ) -> None:
        self.process = process
        self.run_dir = run_dir
        self.events: list[dict[str, object]] = []
        self.console = ""
        self._changed = threading.Condition()
        assert process.stderr is not None
        console_fd = os.dup(process.stderr.fileno())
        self._threads = [
            threading.Thread(target=self._read_status, args=(status_fd,), daemon=True),
            threading.Thread(target=self._read_console, args=(console_fd,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_status(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as lines:
            for line in lines:
                with self._changed:
                    self.events.append(json.loads(line))
                    self._changed.notify_all()

    def _read_console(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as console:
            while block := console.read1(65536):
                with self._changed:
                    self.console += block.decode(errors="replace")
                    self._changed.notify_all()

    def event(self, name: str, timeout: float = 20) -> dict[str, object]:
        """The status line of this name, once it is there."""

        def found() -> dict[str, object] | None:
            return next((event for event in self.events if event["event"] == name), None)

        with self._changed:
            self._changed.wait_for(found, timeout)
            event = found()
        assert event is not None, f"no `{name}` in {self.events}; console:\n{self.console}"
        return event

    def shown(self, text: str, timeout: float = 20) -> str:
        """The console, once it shows ``text``."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.console, timeout)
            tail = self.console[-4000:]
            assert text in self.console, f"`{text}` not in console:\n{tail}\n{self.events}"
            return self.console

    def close(self) -> None:
        """Ends the launcher and waits for it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        for thread in self._threads:
            thread.join(20)
        if self.process.stderr is not None:
            self.process.stderr.close()


def as_user(uid: int | None) -> dict[str, object]:
    """Arguments of Popen that make the child an ordinary user."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


@contextlib.contextmanager
def launched(
    launcher: pathlib.Path,
    contents: bytes,
    folder: pathlib.Path,
    *,
    uid: int | None = None,
    owner: int | None = None,
    **settings: object,
) -> Iterator[Launched]:
    """Starts ``launcher`` on an image, as the user ``uid`` or as whoever runs the test.

    The files belong to ``owner``, by default the same user.
    """
    owner = uid if owner is None else owner
    run_dir = folder / "run"
    (run_dir / "v").mkdir(parents=True)
    (folder / "image.eif").write_bytes(contents)
    (folder / "ca").mkdir()
    if owner is not None:
        for path in [folder, run_dir, run_dir / "v", folder / "image.eif", folder / "ca"]:
            os.chown(path, owner, owner)
    spec = {
        "eif": str(folder / "image.eif"),
        "run_dir": str(run_dir),
        "dev_ca_dir": str(folder / "ca"),
        "memory_bytes": 512 << 20,
        "cpus": None,
        "module_id": "i-test-enc1",
        "debug": False,
    } | settings
    process, status_fd = spawn(launcher, spec, uid=uid)
    running = Launched(process, status_fd, run_dir)
    try:
        yield running
    finally:
        running.close()


def spawn(
    launcher: pathlib.Path, spec: dict[str, object], *, uid: int | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts the launcher with its specification on descriptor 3 and its status on descriptor 4."""
    low_read, spec_write = os.pipe()
    status_read, low_write = os.pipe()
    spec_read = fcntl.fcntl(low_read, fcntl.F_DUPFD_CLOEXEC, 20)
    status_write = fcntl.fcntl(low_write, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(low_read)
    os.close(low_write)
    # Through a shell, as the numbers must be 3 and 4 whatever ours are.
    script = f'exec "$0" 3<&{spec_read} 4>&{status_write} {spec_read}<&- {status_write}>&-'
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, str(launcher)],
        pass_fds=(spec_read, status_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **as_user(uid),  # type: ignore[call-overload]
    )
    os.close(spec_read)
    os.close(status_write)
    os.write(spec_write, json.dumps(spec).encode())
    os.close(spec_write)
    return process, status_read


def eventually(check: object, timeout: float = 10) -> bool:
    """Whether ``check()`` becomes true before the deadline."""
    assert callable(check)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return bool(check())
