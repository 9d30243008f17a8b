"""The directory of objects: conditions, between threads and processes too, and its bounds."""

import pathlib
import subprocess
import sys
import threading
import uuid

import pytest

from cloister.errors import OutputError
from cloister.host.objects import MAX_OBJECTS, DirectoryObjects, PreconditionFailed

ENCLAVE = uuid.UUID("0d5a2a8e-6a51-4f3b-bf0f-4d8c3f0a9e33")
WRITER = """
import pathlib, sys, uuid
from cloister.host.objects import DirectoryObjects, PreconditionFailed
objects = DirectoryObjects(pathlib.Path(sys.argv[1]))
try:
    objects.write(uuid.UUID(sys.argv[2]), "tls", sys.argv[3].encode(), if_none_match="*")
    print("first")
except PreconditionFailed:
    print("late")
"""


def test_an_object_is_replaced_only_under_its_condition(tmp_path: pathlib.Path) -> None:
    objects = DirectoryObjects(tmp_path)
    first = objects.write(ENCLAVE, "tls", b"1", if_none_match="*")
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"2", if_none_match="*")
    second = objects.write(ENCLAVE, "tls", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"3", if_match=first)
    assert objects.read(ENCLAVE, "tls") == (b"2", second)
    with pytest.raises(PreconditionFailed):
        objects.remove(ENCLAVE, "tls", if_match=first)
    assert objects.remove(ENCLAVE, "tls", if_match=second)
    assert not objects.remove(ENCLAVE, "tls")
    with pytest.raises(PreconditionFailed):
        objects.write(ENCLAVE, "tls", b"4", if_match=second)


def test_one_of_many_threads_is_the_first(tmp_path: pathlib.Path) -> None:
    """Each with a store of its own, as hosts of one process have them."""
    firsts: list[int] = []

    def write(number: int) -> None:
        try:
            body = str(number).encode()
            DirectoryObjects(tmp_path).write(ENCLAVE, "tls", body, if_none_match="*")
        except PreconditionFailed:
            return
        firsts.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(firsts) == 1
    found = DirectoryObjects(tmp_path).read(ENCLAVE, "tls")
    assert found is not None
    assert found[0] == str(firsts[0]).encode()


def test_one_of_many_processes_is_the_first(tmp_path: pathlib.Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path), str(ENCLAVE)]
    writers = [
        subprocess.Popen([*words, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    said = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert sorted(said) == ["first", "late", "late", "late"]
    found = DirectoryObjects(tmp_path).read(ENCLAVE, "tls")
    assert found is not None
    assert found[0] == str(said.index("first")).encode()


def test_images_that_are_gone_make_room(tmp_path: pathlib.Path) -> None:
    objects = DirectoryObjects(tmp_path)
    names = [f"tls.{number:032x}" for number in range(MAX_OBJECTS)]
    for name in names:
        objects.write(ENCLAVE, name, b"x")
    objects.write(ENCLAVE, names[0], b"y")  # its last write is the newest by now
    newest = f"tls.{MAX_OBJECTS:032x}"
    objects.write(ENCLAVE, newest, b"x")
    assert objects.read(ENCLAVE, newest) is not None
    assert objects.read(ENCLAVE, names[0]) is not None
    assert objects.read(ENCLAVE, names[1]) is None


def test_what_is_of_no_image_is_kept(tmp_path: pathlib.Path) -> None:
    objects = DirectoryObjects(tmp_path)
    for number in range(MAX_OBJECTS):
        objects.write(ENCLAVE, f"challenge-{number}", b"x")
    with pytest.raises(OutputError, match="at most 256"):
        objects.write(ENCLAVE, "one-more", b"x")
    objects.write(ENCLAVE, "challenge-0", b"y")
