"""Kernels of enclave images: choose, build, fetch and list them.

:mod:`~cloister.build.kernel.bzimage` reads the head of a kernel and
:mod:`~cloister.build.kernel.facts` its configuration, :mod:`~cloister.build.kernel.store` keeps
kernels, and :mod:`~cloister.build.kernel.choose` turns ``[kernel]`` of ``enclave.toml`` into what
goes into an image. ``docs/adr/0079-kernels-by-name-or-path.md`` says why names are what they are.
"""

from cloister.build.kernel.bzimage import BzImage
from cloister.build.kernel.choose import ChosenKernel, choose_kernel
from cloister.build.kernel.store import KernelFiles, KernelStore, Module, StoredKernel

__all__ = [
    "BzImage",
    "ChosenKernel",
    "KernelFiles",
    "KernelStore",
    "Module",
    "StoredKernel",
    "choose_kernel",
]
