"""Labelled KITTI frames: boxes lie on their points, and fit the rectangles that people drew in the picture."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from wm_ros.data.sources import episodes
from wm_ros.lidar.boxes import points_inside
from wm_ros.lidar.detection_ap import average_precision
from wm_ros.lidar.detection_rules import rectangles, scenes
from wm_ros.types import PictureBoxes, Sweep

DATA = Path(os.environ.get("WM_DATA", "../shared/data"))
FRAMES = DATA / "kitti_object"
pytestmark = pytest.mark.skipif(not FRAMES.is_dir(), reason=f"no labelled frames at {FRAMES}; set WM_DATA")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[PictureBoxes, Sweep, list[str]]]:
    spec = importlib.util.spec_from_file_location("unpack", DATA / "to_kitti_raw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("kitti_object")
    for name in ("label_2", "calib", "image_2"):
        shutil.copytree(FRAMES / name, folder / name)
    (folder / "velodyne").mkdir()
    for file in sorted((FRAMES / "velodyne").glob("*.kmm.xz"))[:9]:
        module.decode(file.read_bytes()).tofile(folder / "velodyne" / f"{file.name.split('.')[0]}.bin")
    found = []
    for episode in episodes(str(folder)):
        samples = list(episode.samples())
        (boxes,) = [s for s in samples if isinstance(s, PictureBoxes)]
        (sweep,) = [s for s in samples if isinstance(s, Sweep)]
        label = folder / "label_2" / f"{episode.name.split('-')[-1]}.txt"
        lines = [line for line in label.read_text().splitlines() if not line.startswith("DontCare")]
        found.append((boxes, sweep, lines))
    return found


def test_boxes_lie_on_the_points_of_their_objects(frames) -> None:
    counts = np.concatenate([points_inside(sweep.points, boxes.boxes) for boxes, sweep, _ in frames])
    assert len(counts) > 30 and (counts >= 3).mean() > 0.9 and np.median(counts) > 40


def test_boxes_projected_are_the_rectangles_of_the_labels(frames) -> None:
    errors = []
    for boxes, _, lines in frames:
        drawn = np.array([[float(v) for v in line.split()[4:8]] for line in lines])
        ours = rectangles(boxes, boxes.boxes)
        whole = boxes.truncated == 0
        np.testing.assert_allclose(ours[whole], drawn[whole], atol=15)  # people's boxes are a little generous
        errors.append(np.abs(ours - drawn)[whole])
    assert np.median(np.concatenate(errors)) < 0.7  # pixel


def test_what_people_labelled_scores_100_by_the_rules(frames) -> None:
    found: dict[str, list] = {}
    for boxes, sweep, _ in frames:
        scores = np.ones(len(boxes.boxes), np.float32)
        for key, scene in scenes(boxes, points_inside(sweep.points, boxes.boxes), boxes.boxes, boxes.labels, scores):
            found.setdefault(key.title, []).append(scene)
    figures = {name: average_precision(scene, 0.5) for name, scene in found.items()}
    assert len(figures) == 18
    assert {name: value for name, value in figures.items() if value != 100} == {}
