"""Files that are complete or not there at all."""

from __future__ import annotations

import os
import threading

import pytest

from distilabel_openai_batch.replaced_file import replaced_file


@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_the_file_takes_the_place_of_the_target_at_the_end(tmp_path, earlier):
    path = tmp_path / "report.html"
    if earlier:
        path.write_bytes(earlier)
    with replaced_file(path) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == earlier
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_error_leaves_the_target_and_no_other_file(tmp_path, error):
    path = tmp_path / "report.html"
    path.write_bytes(b"earlier")

    def fail() -> None:
        with replaced_file(path) as file:
            file.write(b"ne")
            raise error

    with pytest.raises(BaseException, match=r"^$|No space left"):
        fail()
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_user_can_read_the_file_while_and_after_it_is_written(tmp_path):
    """An earlier file that all could read does not change that."""
    path = tmp_path / "report.html"
    path.write_bytes(b"earlier")
    path.chmod(0o666)
    with replaced_file(path):
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir() if file != path} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_writers_have_files_of_their_own(tmp_path):
    """The last writer wins with a complete file."""
    path = tmp_path / "report.html"
    with replaced_file(path) as first, replaced_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_link_at_the_target_is_replaced(tmp_path, target):
    path, precious = tmp_path / "report.html", tmp_path / "precious"
    precious.write_bytes(b"my data")
    path.symlink_to(tmp_path / target)
    with replaced_file(path) as file:
        file.write(b"new")
    assert (precious.read_bytes(), path.read_bytes()) == (b"my data", b"new")


def test_a_long_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250)
    with replaced_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_to_directly(tmp_path):
    """A shell's `>(…)` and `/dev/stdout` are no files that could be replaced."""
    path, received = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    with replaced_file(path) as file:
        file.write(b"new")
    reader.join()
    assert received == [b"new"]
    assert path.is_fifo()


@pytest.mark.parametrize("name", ["nowhere/report.html", "."])
def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path, name):
    with pytest.raises(OSError, match=r"nowhere|directory"), replaced_file(tmp_path / name) as file:
        file.write(b"new")
    assert list(tmp_path.iterdir()) == []
