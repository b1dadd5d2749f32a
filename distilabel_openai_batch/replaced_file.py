"""Files that are complete or not there at all, and that no other user can prepare a place for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of `path` at the end of the context; after an error `path` is unchanged.

    The new file lies beside `path`, has a random name and is created exclusively: in a shared directory, another user
    can prepare no link that the writing would follow. A link at `path` itself is replaced, not followed. Only this user
    can read the file. A device or a pipe, such as `/dev/stdout`, is written to directly.

    Args:
        path: the target.

    Raises:
        OSError: the file cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as device:
            yield device
        return
    # `mkstemp` opens with O_EXCL and mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:_NAME_CHARACTERS]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# Characters of the target's name in the new file's name, which helps to find the target of a leftover; a longer name
# could exceed the limit of the file system.
_NAME_CHARACTERS = 100
