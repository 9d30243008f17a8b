"""Changes of one certificate in a chain that is right else."""

from collections.abc import Callable

from tests.conformance.attestation.catalogue.case import with_chain
from tests.conformance.attestation.forge import certificates, der
from tests.conformance.attestation.forge.certificates import Certificate, Chain

Change = Callable[[Certificate], object]

BELOW = ("regional", "zonal", "instance", "leaf")
"""Every certificate but the root."""


def saying(**values: object) -> Change:
    """With other values in these fields."""

    def change(certificate: Certificate) -> None:
        for name, value in values.items():
            assert hasattr(certificate, name)
            setattr(certificate, name, value)

    return change


def in_link(level: str, change: Change) -> bytes:
    """The right document around a chain with this change in one link."""
    return with_chain(lambda chain: change(chain.links[level]))


def without(kind: str, *instead: bytes) -> Change:
    """Without one extension, and with others in its place."""

    def change(certificate: Certificate) -> None:
        prefix = der.oid(kind)
        extensions = certificate.extensions or []
        kept = [one for one in extensions if prefix not in one]
        assert len(kept) == len(extensions) - 1
        certificate.extensions = [*kept, *instead]

    return change


def adding(*extensions: bytes) -> Change:
    """With these extensions besides."""

    def change(certificate: Certificate) -> None:
        certificate.extensions = [*(certificate.extensions or []), *extensions]

    return change


def grown_to(size: int) -> Change:
    """So many bytes long: filled up with an unknown extension, which is signed like the rest."""

    def change(certificate: Certificate) -> None:
        kept = certificate.extensions or []
        filler = 0
        # Another filler has another signature, a byte or two longer or shorter; the bytes are
        # drawn in turn, so that the same certificate comes out of every run.
        for number in range(256):
            value = der.tlv(der.OCTET_STRING, bytes([number]) * filler)
            certificate.extensions = [*kept, der.extension(UNKNOWN, value)]
            short = size - len(certificate.encode())
            if short == 0:
                return
            filler += short
        raise AssertionError(f"no certificate of {size} bytes")

    return change


def deeper(more: int) -> Callable[[Chain], None]:
    """With so many more authorities between the root and the regional one."""

    def change(chain: Chain) -> None:
        root, *below = chain.links.items()
        links = dict([root])
        above = root[1]
        for number in range(more):
            own = certificates.key(f"deep {number}")
            links[f"deep {number}"] = above = Certificate(
                key=own,
                signed_by=above.key,
                subject=der.name(f"deep-{number}.conformance.invalid"),
                issuer=above.subject,
                begin=der.time(certificates.NOW - 60_000),
                end=der.time(certificates.NOW + certificates.DAY),
                extensions=[
                    certificates.basic_constraints(ca=True),
                    certificates.key_usage(certificates.CERT_SIGN),
                ],
                key_info=certificates.key_info(own),
            )
        regional = below[0][1]
        regional.issuer, regional.signed_by = above.subject, above.key
        chain.links = links | dict(below)

    return change


UNKNOWN = "1.3.6.1.4.1.55555.1"
"""An extension without a meaning to anybody."""
