"""Output folders: never overwritten unasked, never left half-written under their final name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wm_ros.errors import UserError


@contextmanager
def fresh_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Give a folder to write into; it becomes `out` when the block ends well, and is removed when it fails.

    With `force` an existing `out` is replaced at the end, so a failure leaves the old one untouched.

    Raises:
        UserError: `out` exists, is not empty, and `force` is off.
    """
    if out.exists() and not force and (out.is_file() or any(out.iterdir())):
        raise UserError(f"'{out}' exists and is not empty: choose another name, or overwrite it with --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    # A hidden folder beside it, on the same disk; inside, the final name, which some writers put into file names.
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as hidden:
        part = Path(hidden) / out.name
        yield part
        if out.is_dir():
            shutil.rmtree(out)
        elif out.exists():
            out.unlink()
        part.rename(out)
