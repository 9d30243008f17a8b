"""Starting, watching and stopping enclaves: one protocol, one module for each way to run them."""

from cloister.runners.protocol import Enclave, Endpoints, Exit, Launch, Runner
from cloister.runners.sandbox import SandboxRunner

__all__ = ["Enclave", "Endpoints", "Exit", "Launch", "Runner", "SandboxRunner"]
