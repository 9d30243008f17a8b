"""The clients that make load: wrk, h2load and openssl, each pinned and bounded in time.

A client counts the operations that succeeded; one that failed ends the run, because a fast refusal
is no result.
"""

import contextlib
import dataclasses
import pathlib
import re
import socket
import ssl

from bench.load.programs import output
from bench.load.proxies import Proxy

# TLS 1.3 with AES-256-GCM and X25519, as openssl's own default is.
_H2LOAD = "--tls13-ciphers=TLS_AES_256_GCM_SHA384"
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """What a client did.

    Args:
        operations: How many; 0 when the proxy does not speak the protocol.
        p50: Median latency, microseconds.
        p99: 99th percentile, microseconds.
    """

    operations: int
    p50: float | None = None
    p99: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Makers of load.

    Args:
        folder: For scripts.
        seconds: Length of each measurement.
        cpus: Where clients run.
    """

    folder: pathlib.Path
    seconds: int
    cpus: str

    def get(self, proxy: Proxy, path: str, connections: int) -> Load:
        """GET over HTTP/1.1, kept alive, by wrk."""
        return self._wrk(proxy, path, connections, script=None)

    def post(self, proxy: Proxy, connections: int, content_type: str, size: int) -> Load:
        """POST of ``size`` bytes over HTTP/1.1, kept alive, by wrk."""
        script = self.folder / f"post-{size}-{content_type.replace('/', '-')}.lua"
        if not script.exists():
            body = json_body(size)
            script.write_text(
                "wrk.method = 'POST'\n"
                f"wrk.body = [[{body}]]\n"
                f"wrk.headers['Content-Type'] = '{content_type}'\n"
            )
        return self._wrk(proxy, "/small", connections, script)

    def h2(self, proxy: Proxy, path: str, connections: int, streams: int) -> Load:
        """GET over HTTP/2 by h2load; nothing when ALPN gives another protocol."""
        command = ["h2load", _H2LOAD, "-t1", f"-c{connections}", f"-m{streams}"]
        command += [f"-D{self.seconds}", "--npn-list=h2,http/1.1"]
        for header in proxy.headers:
            command += ["-H", header]
        said = output([*command, f"https://127.0.0.1:{proxy.port}{path}"], self.cpus)
        if "Application protocol: h2" not in said:
            return Load(0)
        succeeded = int(_found(r"(\d+) succeeded", said))
        codes = _found(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", said)
        # Streams that the end of the time cut off have a status and no end.
        _expect(succeeded > 0 and abs(int(codes) - succeeded) <= connections * streams, said)
        return Load(succeeded)

    def handshakes(self, proxy: Proxy, version: str) -> Load:
        """Full handshakes, one after the other; ``version`` is ``tls1_2`` or ``tls1_3``."""
        return self._s_time(proxy, version, [])

    def whole_connections(self, proxy: Proxy) -> Load:
        """Connect, full TLS 1.3 handshake, GET, end of the connection; one after the other."""
        # s_time writes HTTP/1.0 behind the path and knows no headers; they go in with the path. Nor
        # does it look at answers, so one is looked at first.
        path = "\r\n".join(["/small HTTP/1.0", "host: localhost", *proxy.headers, "x-rest: "])
        answer = _answer(proxy.port, f"GET {path} HTTP/1.0\r\n\r\n")
        _expect(re.match(r"HTTP/1\.[01] 200 ", answer) is not None, f"{proxy.name}: {answer}")
        return self._s_time(proxy, "tls1_3", ["-www", path])

    def _s_time(self, proxy: Proxy, version: str, rest: list[str]) -> Load:
        command = ["openssl", "s_time", "-new", f"-{version}", "-time", str(self.seconds)]
        said = output([*command, *rest, "-connect", f"127.0.0.1:{proxy.port}"], self.cpus)
        return Load(int(re.findall(r"(\d+) connections in", said)[-1]))

    def _wrk(self, proxy: Proxy, path: str, connections: int, script: pathlib.Path | None) -> Load:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{self.seconds}s", "--latency"]
        for header in proxy.headers:
            command += ["-H", header]
        if script is not None:
            command += ["-s", str(script)]
        said = output([*command, f"https://127.0.0.1:{proxy.port}{path}"], self.cpus)
        _expect("Non-2xx" not in said and "Socket errors" not in said, f"{proxy.name}: {said}")
        return Load(
            int(_found(r"(\d+) requests in", said)), p50=_micros(said, 50), p99=_micros(said, 99)
        )


def json_body(size: int) -> str:
    """JSON of so many bytes."""
    frame = '{"name": "Ada", "note": "", "id": 1}'
    return frame.replace('""', f'"{"x" * (size - len(frame))}"')


def _answer(port: int, request: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw) as stream,
    ):
        stream.sendall(request.encode())
        parts = []
        with contextlib.suppress(ssl.SSLEOFError):
            while part := stream.recv(65536):
                parts.append(part)
    return b"".join(parts).decode("latin-1")


def _micros(said: str, percent: int) -> float:
    value = _found(rf"\s{percent}%\s+(\d\S*)", said)
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", value).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _found(pattern: str, said: str) -> str:
    match = re.search(pattern, said)
    _expect(match is not None, f"no `{pattern}` in: {said}")
    assert match is not None
    return match[1]


def _expect(is_as_expected: bool, said: str) -> None:  # noqa: FBT001 - an assertion
    if not is_as_expected:
        raise SystemExit(said)
