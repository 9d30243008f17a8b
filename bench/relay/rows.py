"""The rows: what is done through the proxies, and with which of them."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping

from bench.load.clients import Load
from bench.load.measure import Figure, Meter
from bench.load.programs import output, running
from bench.load.proxies import Proxy
from bench.relay import proxies
from bench.relay.proxies import HOST, Field, Task

CPU = "0"
SINK, ECHO, FIRST = 7100, 7101, 7110

Start = Callable[[Field, int, Task], Proxy]
ALL: tuple[Start, ...] = (
    proxies.haproxy,
    proxies.haproxy_tuned,
    proxies.nginx,
    proxies.tokio,
    proxies.ours,
)
BULK: tuple[Start, ...] = (*ALL[:3], proxies.nginx_256k, *ALL[3:])
WITHOUT_TOKIO: tuple[Start, ...] = tuple(one for one in ALL if one is not proxies.tokio)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        number: As in the design's table.
        name: What is done.
        words: Of the load: its kind and what stands behind the address.
        field: The proxies.
        target: Most that ours may be of the best other.
        sink: The backend reads and says nothing.
        unix: The backend has a Unix socket.
        header: Proxies say first who connects.
    """

    number: int
    name: str
    words: tuple[str, ...]
    field: tuple[Start, ...]
    target: float
    sink: bool = False
    unix: bool = False
    header: bool = False


ROWS = (
    Row(
        number=11,
        name="bulk, 1 connection, per MB",
        words=("bulk", "1"),
        field=BULK,
        target=1.0,
        sink=True,
    ),
    Row(
        number=12,
        name="bulk, 8 connections, per MB",
        words=("bulk", "8"),
        field=BULK,
        target=0.87,
        sink=True,
    ),
    Row(number=13, name="64 B, 32 connections", words=("ping", "32"), field=ALL, target=0.80),
    Row(number=14, name="64 B, 1 connection", words=("ping", "1"), field=ALL, target=1.0),
    Row(number=15, name="connect, 64 B, close", words=("connect",), field=ALL, target=0.98),
    Row(
        number=16,
        name="the same with a PROXY header (nginx: v1)",
        words=("connect",),
        field=WITHOUT_TOKIO,
        target=0.91,
        header=True,
    ),
    Row(
        number=17,
        name="64 B to a Unix socket, 32 connections",
        words=("ping", "32"),
        field=WITHOUT_TOKIO,
        target=0.70,
        unix=True,
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of rows.

    Args:
        load: The program of bench/rust/relay-load.
        seconds: Length of each measurement.
        meter: Decides what counts.
    """

    load: pathlib.Path
    seconds: float
    meter: Meter

    def row(self, row: Row) -> Mapping[str, Figure | None]:
        """Starts the row's backend and proxies, measures them in turns, and ends them."""
        with (
            tempfile.TemporaryDirectory(dir="/tmp") as name,  # a short path: unix(7)
            contextlib.ExitStack() as stack,
        ):
            folder = pathlib.Path(name)
            field = Field(stack=stack, folder=folder, cpus=CPU, load=self.load)
            task = Task(self._backend(stack, folder, row), sends_header=row.header)
            started = [start(field, FIRST + at, task) for at, start in enumerate(row.field)]
            return self.meter.row(f"{row.number}", lambda proxy: self._once(row, proxy), started)

    def _backend(self, stack: contextlib.ExitStack, folder: pathlib.Path, row: Row) -> str:
        port = SINK if row.sink else ECHO
        kind = "sink" if row.sink else "echo"
        address = f"{HOST}:{port}"
        stack.enter_context(running(kind, [str(self.load), kind, address], port, CPU))
        if not row.unix:
            return address
        path = folder / "echo.sock"
        # The one on TCP tells when the program is up, and this one is started by then.
        other = [str(self.load), "echo", str(path)]
        stack.enter_context(running("unix", other, port, CPU))
        return str(path)

    def _once(self, row: Row, proxy: Proxy) -> Load:
        kind, *count = row.words
        command = [str(self.load), kind, f"{HOST}:{proxy.port}", *count, str(self.seconds)]
        said = [float(word) for word in output(command, CPU).split()]
        p50, p99 = said[1:] if len(said) > 1 else (None, None)
        return Load(int(said[0]), p50=p50, p99=p99)
