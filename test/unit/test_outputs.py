"""Nothing is overwritten unasked, nothing half-written keeps its final name."""

import pytest

from wm_ros.errors import UserError
from wm_ros.outputs import fresh_folder


def write(folder, text):
    folder.mkdir()
    (folder / "file").write_text(text)


def test_a_folder_with_content_is_refused_and_untouched(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(UserError, match="--force"), fresh_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_force_replaces_only_when_all_went_well(tmp_path):
    write(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), fresh_folder(tmp_path / "out", force=True) as part:
        write(part, "half")
        raise RuntimeError
    assert (tmp_path / "out" / "file").read_text() == "old"
    with fresh_folder(tmp_path / "out", force=True) as part:
        write(part, "new")
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    with fresh_folder(tmp_path / "out") as part:
        write(part, "new")
    assert (tmp_path / "out" / "file").read_text() == "new"
