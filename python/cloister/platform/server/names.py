"""What clients call a platform: an address, or a DNS name in ASCII.

Certificates know a name in its ASCII form alone (RFC 5280, section 4.2.1.6), labels of letters,
digits and hyphens (RFC 1034, section 3.5). Whether it leads here nobody checks.
"""

import ipaddress
import re

from cryptography import x509

from cloister.errors import ConfigError


def general_name(text: str) -> x509.GeneralName:
    """A name as certificates have it.

    Args:
        text: An IPv4 or IPv6 address, without brackets and zone, or a DNS name without a final dot.

    Raises:
        ConfigError: It is neither.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is not None and "%" not in text:
        return x509.IPAddress(address)
    is_name = len(text) <= MAX_NAME and all(LABEL.fullmatch(one) for one in text.split("."))
    # A last label of digits is that of an address which is none, as 10.0.0.256.
    if not is_name or text.rpartition(".")[2].isdigit():
        raise ConfigError(
            f"the platform's name {text[:80]!a} is neither an address nor a DNS name",
            hint="letters, digits and hyphens; other letters in their ASCII form, as in xn--…",
        )
    return x509.DNSName(text)


LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
MAX_NAME = 253  # RFC 1035, section 2.3.4, without length octets and root
