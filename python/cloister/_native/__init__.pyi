"""The Rust half of the package. Import from the public module that wraps it."""

from cloister._native import attest as attest
from cloister._native import crypto as crypto
from cloister._native import devplane as devplane
from cloister._native import hostplane as hostplane
from cloister._native import sealing as sealing

__all__ = ["attest", "crypto", "devplane", "hostplane", "sealing"]
