"""What is in an EIF, of any maker: its files, where two images differ, and all of it on disk.

It describes and believes nothing: what our own rules would refuse to start (device nodes,
compressed ramdisks, several archives in one) is shown as it is. The structure
around it is read strictly.
"""

from cloister.build.explain.change import Change
from cloister.build.explain.contents import Contents, Item, contents
from cloister.build.explain.difference import Difference, difference, registers
from cloister.build.explain.extract import extract
from cloister.build.explain.packages import PackageChange

__all__ = [
    "Change",
    "Contents",
    "Difference",
    "Item",
    "PackageChange",
    "contents",
    "difference",
    "extract",
    "registers",
]
