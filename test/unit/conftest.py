"""What several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """Folders of released models, tiny (see `paper_parts`)."""
    from paper_parts import write_folders

    return write_folders(tmp_path_factory.mktemp("released"))
