"""What is in an EIF, of any maker: its files, where two images differ, and all of it on disk.

It describes and believes nothing: what our own rules would refuse to start (device nodes,
compressed ramdisks, several archives in one) is shown as it is. The structure
around it is read strictly.
"""

from cloister.build.explain.contents import Contents, Item, contents
from cloister.build.explain.difference import Change, difference, registers
from cloister.build.explain.extract import extract

__all__ = ["Change", "Contents", "Item", "contents", "difference", "extract", "registers"]
