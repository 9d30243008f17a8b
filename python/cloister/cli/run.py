"""``cloister run``: platform, host and runner around one enclave, in one foreground command."""

import dataclasses
import enum
import pathlib
import shlex
import signal
import threading
import types
from typing import Annotated, Any, Self

import typer

from cloister.cli import _log_line, _run_plan, output, params, settings
from cloister.cli._run_plan import RunPlan
from cloister.cli._run_session import Running, RunSession
from cloister.errors import UsageError
from cloister.host import logs


class RunnerName(enum.StrEnum):
    """Ways to run an enclave."""

    SANDBOX = "sandbox"
    QEMU = "qemu"
    NITRO = "nitro"


def run(  # noqa: PLR0913 - one parameter an option
    *,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any free one.")
    ] = "127.0.0.1:8443",
    config: Annotated[
        pathlib.Path, typer.Option("--config", metavar="FILE", help="The enclave.toml.")
    ] = pathlib.Path("enclave.toml"),
    eif: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="The image; default: enclave.eif beside enclave.toml."),
    ] = None,
    runner: Annotated[RunnerName, typer.Option(help="How it is run.")] = RunnerName.SANDBOX,
    show_logs: Annotated[
        bool, typer.Option("--logs", help="Print each transaction log line as it arrives.")
    ] = False,
    console: Annotated[
        bool, typer.Option("--console", help="Show the console of the enclave's init.")
    ] = False,
    platform_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A platform of class development; default: the local store."
        ),
    ] = None,
    start_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="How long the enclave may take to be ready.")
    ] = "60s",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object when it is ready.")
    ] = False,
) -> None:
    """Run an enclave on this machine.

    Platform, host and runner in this one process, under a development root that nobody outside this
    machine trusts. With --platform-url, or CLOISTER_PLATFORM_URL, that server is the platform.
    Ctrl-C lets the enclave finish what is in flight, then stops everything; a second one stops it
    at once.

    Example:
      cloister run --listen 127.0.0.1:8443 --logs
    """
    if runner is not RunnerName.SANDBOX:
        raise UsageError(
            f"this version has no runner `{runner.value}`, whatever kernel is in the image",
            hint="--runner sandbox runs the image on any Linux, with a kernel in it or without",
        )
    env = settings.load()
    if platform_url is not None:
        env = dataclasses.replace(env, platform_url=platform_url)
    plan = _run_plan.make(
        config,
        image=eif,
        listen=f"tcp:{params.listen_address(listen)}",
        dev_ca=env.dev_ca,
        runtime=env.runtime,
        start_timeout=params.duration(start_timeout),
    )
    if plan.changed:
        output.warn(
            f"enclave.toml was changed since the build ({', '.join(plan.changed)}): the image runs"
            " as it was built; `cloister build` applies the changes"
        )
    if plan.debug:
        output.warn("a debug enclave: its PCRs are zero, its console is open, nothing is proved")
    say = output.note if console else output.detail
    with (
        Stop() as stop,
        RunSession(
            plan,
            console=lambda line: say(f"console: {line}"),
            event=lambda kind, message: output.detail(f"enclave: {kind}: {message}"),
            env=None if env.platform_url is None else env,
        ) as session,
    ):
        with output.step(f"`{plan.name}` started in the sandbox"):
            running = session.start()
        stop.can_drain = True
        shown = _shown(plan, running) | {"platform_url": env.platform_url}
        told = _told(plan, running, platform_url=env.platform_url)
        output.show(shown, as_json=as_json, text=told)
        printing = LogPrinter(running.log_dir, as_json=as_json) if show_logs else None
        try:
            while not stop.is_asked:
                problem = session.ended(WAIT_SECONDS)
                if problem is not None:
                    raise problem
            output.note("stopping: no new clients, what is in flight may finish")
            session.drain()
        finally:
            if printing is not None:
                printing.stop()
    output.note("stopped")


class Stop:
    """Ctrl-C and SIGTERM: the first asks for a drain, the second ends at once, more do nothing.

    Before there is something to drain, the first ends at once.
    """

    def __init__(self) -> None:
        self.can_drain = False
        self.is_asked = False
        self._is_ending = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, _number: int, _frame: types.FrameType | None) -> None:
        if self._is_ending:
            return
        if self.is_asked or not self.can_drain:
            self._is_ending = True
            raise KeyboardInterrupt
        self.is_asked = True


class LogPrinter:
    """Prints transaction log records as they reach the disk, on a thread of its own.

    Args:
        folder: Where the segments are.
        as_json: Print whole records.
    """

    def __init__(self, folder: pathlib.Path, *, as_json: bool) -> None:
        self._stop = threading.Event()
        self._as_json = as_json
        self._thread = threading.Thread(target=self._run, args=(folder,), name="log-printer")
        self._thread.start()

    def stop(self) -> None:
        """Prints what is there and ends."""
        self._stop.set()
        self._thread.join()

    def _run(self, folder: pathlib.Path) -> None:
        for record in logs.follow(folder, self._stop):
            output.show(record, as_json=self._as_json, text=_log_line.line(record))


def _shown(plan: RunPlan, running: Running) -> dict[str, Any]:
    return {
        "name": plan.name,
        "uuid": str(plan.enclave),
        "app_uuid": str(plan.app),
        "url": _url(plan, running),
        "listen": running.address,
        "runner": "sandbox",
        "trust": "development",
        "debug": plan.debug,
        "ca_file": str(running.ca_file),
        "nsm_root": str(running.nsm_root),
        "api_key": running.api_key,
        "api_key_file": None if running.api_key_file is None else str(running.api_key_file),
        "app_public_key": running.app_public_key.hex(),
        "pcrs": _pcrs(running),
        "log_dir": str(running.log_dir),
        "init_pid": running.init_pid,
    }


def _pcrs(running: Running) -> dict[str, str]:
    return {f"PCR{index}": value.hex() for index, value in sorted(running.registers.items())}


def _url(plan: RunPlan, running: Running) -> str:
    host, _, port = running.address.removeprefix("tcp:").rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - to connect to
    return f"{plan.scheme}://{host}:{port}"


def _told(plan: RunPlan, running: Running, *, platform_url: str | None) -> str:
    url = _url(plan, running)
    halves = "platform, host and runner" if platform_url is None else "host and runner"
    lines = [
        f"`{plan.name}` runs: {halves} in this process, under a development root.",
        "It proves nothing to anybody outside this machine.",
        "",
        f"  URL              {url}",
    ]
    if platform_url is not None:
        lines.append(f"  platform         {platform_url}")
    if plan.scheme != "tcp":
        lines.append(f"  CA file          {running.ca_file}")
    lines.append(f"  attestation root {running.nsm_root}")
    if running.api_key is not None:
        lines += [
            f"  API key          {running.api_key}",
            f"    kept in        {running.api_key_file}",
        ]
    elif plan.needs_api_key:
        lines.append(
            f"  API key          {PLACEHOLDER}: `cloister key create --name NAME` makes one"
        )
    lines += [f"  {name:<16} {value}" for name, value in _pcrs(running).items()]
    lines += [f"  transaction logs {running.log_dir}"]
    if plan.scheme == "https":
        lines += ["", *_how_to_call(plan, running, url)]
    else:
        lines += ["", *_how_to_connect(plan, running)]
    return "\n".join([*lines, "", "Ctrl-C drains and stops it."])


def _how_to_connect(plan: RunPlan, running: Running) -> list[str]:
    """Where there is no HTTP, documents come from the application, by the internal API."""
    address = running.address.removeprefix("tcp:")
    if plan.scheme == "tcp":
        return [f"TLS and all that is inside is the application's: connect to {address}."]
    ca = shlex.quote(str(running.ca_file))
    return [
        "With openssl (TLS alone, nothing is attested):",
        f"  openssl s_client -quiet -verify_return_error -CAfile {ca} -connect {address}",
    ]


def _how_to_call(plan: RunPlan, running: Running, url: str) -> list[str]:
    key, api_key = "", None
    if running.api_key_file is not None:
        key = f' -H "api-key: $(cat {shlex.quote(str(running.api_key_file))})"'
        api_key = f"open({str(running.api_key_file)!r}).read().strip()"
    elif plan.needs_api_key:
        # One of this platform is shown to who makes it alone.
        key, api_key = f' -H "api-key: {PLACEHOLDER}"', repr(PLACEHOLDER)
    # A debug enclave has none of the registers that enclave.toml names.
    accepted = "{'PCR0': '0' * 96}" if plan.debug else repr(str(plan.toml))
    lines = [
        "With curl (TLS alone, nothing is attested):",
        f"  curl --cacert {shlex.quote(str(running.ca_file))}{key} {url}/",
        "With the SDK (attested before the first byte is sent):",
        "  from cloister.attest import TrustAnchor",
        "  from cloister.client import Session",
        f"  session = Session({url!r}, {accepted},",
        f"      trust_anchor=TrustAnchor.dangerous_root({str(running.nsm_root)!r}),",
        f"      ca_file={str(running.ca_file)!r},",
    ]
    if api_key is not None:
        lines.append(f"      api_key={api_key},")
    if plan.debug:
        lines.append("      dangerous_accept_debug=True,")
    return [*lines, "  )", f"  session.get({url + '/'!r})"]


PLACEHOLDER = "ck_…"
WAIT_SECONDS = 0.25
