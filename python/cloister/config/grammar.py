"""Texts with a grammar of their own: egress destinations, header patterns, domains, origins.

Each function returns what is wrong with a text, for a hint, or ``None``. They judge form alone:
nothing is resolved and nothing is connected to.
"""

import ipaddress
import re

SENSITIVE_HEADERS = frozenset(
    {"api-key", "authorization", "proxy-authorization", "cookie", "set-cookie"}
)
"""Never logged, not even when they are listed (data plane, transaction log)."""


def destination_problem(text: str) -> str | None:
    """An egress destination: a name, ``*.suffix``, address, CIDR or ``*``, with a port or range."""
    host, port, problem = _split_port(text)
    if problem is None and port is not None:
        problem = _port_problem(port)
    if problem is not None:
        return problem
    if host == "*":
        return None
    if _is_address(host):
        return None
    if re.fullmatch(r"[0-9./:]+", host):
        return f"`{host}` is neither an IPv4 or IPv6 address nor a network such as 10.0.0.0/8"
    name = host.removeprefix("*.").removesuffix(".")
    return _name_problem(name)


def header_pattern_problem(text: str) -> str | None:
    """A header whose value is logged: ``name`` or ``prefix-*``."""
    if text.lower() in SENSITIVE_HEADERS:
        return f"the value of `{text}` is a secret: it is never logged"
    if not re.fullmatch(
        r"[!#$%&'+.^_`|~0-9A-Za-z-]{1,128}(?<=-)\*|[!#$%&'+.^_`|~\w-]{1,128}", text
    ):
        return "only a whole name, or a prefix that ends in `-*`, as in `x-request-*`"
    return None if text.isascii() else "a header name is ASCII"


def domain_problem(text: str) -> str | None:
    """A domain name of the certificate."""
    if text != text.lower():
        return "a domain is written in lower case"
    if "." not in text:
        return "a domain has at least one dot"
    return _name_problem(text)


def origin_problem(text: str) -> str | None:
    """An origin of CORS: ``*``, or scheme, host and port."""
    if text == "*" or re.fullmatch(
        r"https?://[A-Za-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:]+\](:[0-9]{1,5})?", text
    ):
        return None
    return 'an origin has no path, as in "https://app.example.com"'


def _split_port(text: str) -> tuple[str, str | None, str | None]:
    """Host, port and problem; an IPv6 address with a port stands in brackets."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return text, None, "an IPv6 address with a port is written as [2001:db8::1]:443"
        return address, rest[1:] if rest else None, None
    if text.count(":") > 1:
        return text, None, None
    host, colon, port = text.partition(":")
    return host, port if colon else None, None


def _port_problem(port: str) -> str | None:
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", port)
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if 1 <= first <= last <= MAX_PORT:
            return None
    return "a port is a number from 1 to 65535, or a range such as 8000-8010"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_network(host, strict=True)
    except ValueError:
        return False
    return True


def _name_problem(name: str) -> str | None:
    try:
        encoded = name.encode("idna").decode() if not name.isascii() else name
    except UnicodeError:
        return f"`{name}` is not a domain name"
    if len(encoded) > MAX_NAME:
        return f"a name has at most {MAX_NAME} characters"
    if not _NAME.fullmatch(encoded):
        return f"`{name}` is not a domain name: letters, digits and hyphens between dots"
    return None


_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)
MAX_NAME = 253
MAX_PORT = 65_535
