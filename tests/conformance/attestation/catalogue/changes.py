"""Changes of one certificate in a chain that is right else."""

from collections.abc import Callable

from tests.conformance.attestation.catalogue.case import with_chain
from tests.conformance.attestation.forge import der
from tests.conformance.attestation.forge.certificates import Certificate

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
