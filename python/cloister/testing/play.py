"""The NSM of one boot of a simulated enclave: the truth, or the lie that a fault is."""

import datetime as dt
import functools
import secrets
from collections.abc import Mapping

from cloister._native import attest as _native
from cloister.attest.measurements import PCR_BYTES
from cloister.moments import to_ms
from cloister.testing.authority import Authority
from cloister.testing.document import MODULE_ID, Root, another_image, document
from cloister.testing.fault import Fault


def booted(
    fault: Fault | bytes | None,
    *,
    pcrs: Mapping[int, bytes],
    spki: bytes,
    root: Root,
    now: dt.datetime,
) -> _native.SimulatedNsm:
    """A module for an enclave with these registers.

    Documents with a public key, which are what it is provisioned by, are true all the same.

    Args:
        fault: What clients shall see: a fault, or bytes in place of every document; ``None`` for
            the truth.
        pcrs: Its registers.
        spki: The TLS key that documents are bound to.
        root: What it signs under.
        now: When it boots.
    """
    measured = dict(pcrs)
    if fault is Fault.OTHER_CODE:
        measured = another_image(pcrs)
    elif fault is Fault.DEBUG:
        measured = {index: bytes(PCR_BYTES) for index in (0, 1, 2)}
    module = root.module.another(sorted(measured.items()), module_id=MODULE_ID, now_ms=to_ms(now))
    if isinstance(fault, bytes):
        module.tell_bytes(fault)
    elif fault is Fault.NO_DOCUMENT:
        module.tell_error("InternalError")
    elif fault is Fault.OTHER_KEY:
        module.tell_fields(user_data=Authority().identity().spki)
    elif fault is Fault.OTHER_NONCE:
        module.tell_fields(nonce=secrets.token_bytes(32))
    else:
        forged = _forged(fault, pcrs=pcrs, spki=spki, root=root, now=now)
        if forged is not None:
            module.tell_bytes(forged)
    return module


def _forged(
    fault: Fault | None, *, pcrs: Mapping[int, bytes], spki: bytes, root: Root, now: dt.datetime
) -> bytes | None:
    """What is shown in place of every document, where that is how a fault is played."""
    signed = functools.partial(document, pcrs=pcrs, user_data=spki, now=now)
    match fault:
        case Fault.BAD_SIGNATURE:
            raw = signed(root=root).raw
            return raw[:-1] + bytes([raw[-1] ^ 1])
        case Fault.FROM_THE_FUTURE:
            return signed(root=root, timestamp=now + dt.timedelta(hours=1)).raw
        case Fault.NOT_A_DOCUMENT:
            return b"not an attestation document"
        case Fault.OTHER_ROOT:
            return signed(root=Root()).raw
        case Fault.STALE:
            return signed(root=root, timestamp=now - dt.timedelta(hours=4)).raw
        case _:
            return None
