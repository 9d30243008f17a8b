"""``cloister dev``: the data plane in this process, without an enclave, until told to stop."""

import datetime as dt
import ipaddress
import pathlib
import signal
import threading
from typing import Annotated, Any

import typer

from cloister.cli import output, params, settings
from cloister.dev import ApiKey, DataPlane
from cloister.errors import KeyFileError, MissingInput, UsageError

_CONFIG = pathlib.Path("enclave.toml")


def dev(  # noqa: PLR0913 - one parameter an option
    *,
    upstream: Annotated[
        str, typer.Option(metavar="ADDR", help="The application: HOST:PORT or unix:PATH.")
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any free one.")
    ] = "127.0.0.1:8443",
    config: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FILE", help="The enclave.toml; default: the one here, if there is one."
        ),
    ] = None,
    cert: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="Certificate chain, PEM; else one is made."),
    ] = None,
    key: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")
    ] = None,
    api_key_file: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="API keys, one a line; else one is made and printed."),
    ] = None,
    app_key: Annotated[
        list[pathlib.Path] | None,
        typer.Option(metavar="FILE", help="App key marked development. Repeatable, newest last."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Threads that serve.")] = 1,
    proxy_protocol: Annotated[
        bool, typer.Option("--proxy-protocol", help="Expect a PROXY v2 header first.")
    ] = False,
    metrics_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve /metrics and /health there.")
    ] = None,
    internal_api: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Serve the internal API there, as in 127.0.0.1:9999."
        ),
    ] = None,
    logs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Append transaction logs there; - is standard error."),
    ] = None,
    drain_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="Grace after a signal.")
    ] = "30s",
    dangerous_listen: Annotated[
        bool,
        typer.Option("--dangerous-listen", help="Allow addresses that are not loopback."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the data plane alone, without an enclave.

    TLS, attestation, API keys, decryption and logs work as in an enclave, in front of an
    application that runs here; nothing protects the data. The simulated NSM has zero PCRs, so only
    a client that accepts debug enclaves attests it. Ctrl-C drains; a second one stops at once.

    Example:
      cloister dev --upstream 127.0.0.1:8008
      cloister dev --upstream unix:/tmp/app.sock --listen 127.0.0.1:0 --logs -
    """
    _check_loopback(
        {"--listen": listen, "--metrics-listen": metrics_listen, "--internal-api": internal_api},
        is_dangerous=dangerous_listen,
    )
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key go together")
    grace = params.duration(drain_timeout)
    plane = DataPlane(
        upstream,
        config=_config(config),
        listen=listen,
        api_keys=_api_keys(api_key_file),
        app_keys=app_key or [],
        workers=workers,
        proxy_protocol=proxy_protocol,
        certificate=None if cert is None or key is None else (cert, key),
        nsm_root_dir=_folder(settings.load().dev_ca),
        logs=logs,
        metrics_listen=metrics_listen,
        internal_api=internal_api,
    )
    output.warn(
        "nothing protects the data here: this is the data plane without an enclave, "
        "with keys and plaintext in an ordinary process"
    )
    asked = _Asked()
    with plane:
        shown = _shown(plane, made_key=api_key_file is None)
        output.show(shown, as_json=as_json, text=_told(plane, shown))
        asked.once.wait()
        _drain(plane, asked, grace)


class _Asked:
    """How often a signal asked to stop. Handlers stay: the process ends after it."""

    def __init__(self) -> None:
        self.once = threading.Event()
        self.twice = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._again)

    def _again(self, *_: object) -> None:
        (self.twice if self.once.is_set() else self.once).set()


def _drain(plane: DataPlane, asked: _Asked, grace: dt.timedelta) -> None:
    active = plane.stats()["active_connections"]
    if active:
        output.note(f"draining: {active} connections have {grace.total_seconds():.0f} s to end")
    # In a thread of its own, so that a second signal is heard.
    thread = threading.Thread(target=plane.drain, args=(grace,), name="drain", daemon=True)
    thread.start()
    while thread.is_alive() and not asked.twice.is_set():
        thread.join(_LISTEN_EVERY_S)
    if not thread.is_alive():
        stats = plane.stats()
        output.note(f"stopped: {stats['connections']} connections, {stats['requests']} requests")


def _check_loopback(addresses: dict[str, str | None], *, is_dangerous: bool) -> None:
    for option, address in addresses.items():
        if address is None or address.startswith("unix:"):
            continue
        host = address.removeprefix("tcp:").rpartition(":")[0].strip("[]")
        if _is_loopback(host):
            continue
        if not is_dangerous:
            raise UsageError(
                f"{option}: `{params.printable(host)}` is not a loopback address, and nothing "
                "protects the data here",
                hint="--dangerous-listen allows it",
            )
        output.warn(f"{option}: other machines can connect")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _config(path: pathlib.Path | None) -> pathlib.Path | None:
    if path is not None:
        if not path.is_file():
            raise MissingInput(f"there is no file `{path}`")
        return path
    return _CONFIG if _CONFIG.is_file() else None


def _api_keys(path: pathlib.Path | None) -> list[ApiKey]:
    """API keys of a file; empty lines and lines that start with ``#`` are passed over."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise MissingInput(f"there is no file `{path}`") from None
    except (OSError, UnicodeDecodeError):
        raise KeyFileError(f"`{path}` cannot be read, or is not ASCII") from None
    values = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not values:
        raise KeyFileError(f"`{path}` has no API key")
    return [ApiKey(value=value) for value in values]


def _folder(path: pathlib.Path) -> pathlib.Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _shown(plane: DataPlane, *, made_key: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "url": plane.url,
        "address": plane.address,
        "uuid": plane.uuid,
        "ca_file": None if plane.ca_pem is None else str(plane.ca_file),
        "nsm_root": str(plane.nsm_root_file),
        "app_public_key": plane.app_public_key.hex(),
        "trust": "development",
    }
    if made_key and plane.needs_api_key:
        shown["api_key"] = plane.api_key
    if plane.metrics_address is not None:
        shown["metrics"] = plane.metrics_address
    if plane.internal_api is not None:
        shown["internal_api"] = plane.internal_api
    return shown


def _told(plane: DataPlane, shown: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in shown.items() if value is not None]
    ca_file = shown["ca_file"]
    if plane.url.startswith("https:"):
        ca = "" if ca_file is None else f" --cacert {ca_file}"
        key = f" -H 'api-key: {shown.get('api_key', '$API_KEY')}'" if plane.needs_api_key else ""
        lines.append(f"try: curl{ca}{key} {plane.url}/")
    elif plane.url.startswith("tls:"):
        ca = "" if ca_file is None else f" -CAfile {ca_file}"
        lines.append(f"try: openssl s_client -quiet{ca} -connect {plane.address}")
    return "\n".join(lines)


_LISTEN_EVERY_S = 0.05
