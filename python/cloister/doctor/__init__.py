"""Whether this machine can do the work: what is there, what lacks, and what to do about each.

:func:`read_machine` looks, :func:`examine` judges: a judgment takes no file, clock or environment,
so that tests can hand in any machine. Nothing is changed, and nothing takes longer than seconds.
"""

from cloister.doctor.examine import can_work, examine
from cloister.doctor.finding import Finding, State
from cloister.doctor.machine import Needs, read_machine
from cloister.doctor.readings import Machine

__all__ = ["Finding", "Machine", "Needs", "State", "can_work", "examine", "read_machine"]
