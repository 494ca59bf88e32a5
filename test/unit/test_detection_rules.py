"""Labels of KITTI become boxes of the LiDAR frame, and its rules say what counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wm_ros.data.kitti_labels import read_labels
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.detection_ap import Scene, average_precision, counts
from wm_ros.lidar.detection_rules import detection_table, rectangles, scenes
from wm_ros.training.lidar_cache import open_sweeps
from wm_ros.types import Boxes, EgoPose, PictureBoxes, Sweep

# A camera that looks along x of the LiDAR, 0.3 m ahead of it; 700 px focal length.
CALIBRATION = """P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.3
"""
# 20 m ahead of the camera, 2 m to its right, on a road 1.7 m below it, driving away (heading -90° about y).
CAR = "Car 0.10 1 0.0 650 150 720 210 1.5 1.8 4.2 2.0 1.7 20.0 -1.5707963"
ALL = np.array([0.5])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("velodyne", "label_2", "calib"):
        (tmp_path / name).mkdir()
    np.zeros((10, 4), np.float32).tofile(tmp_path / "velodyne" / "000007.bin")
    (tmp_path / "calib" / "000007.txt").write_text(CALIBRATION)
    (tmp_path / "label_2" / "000007.txt").write_text(
        CAR + "\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    return tmp_path


def frame(*rows: tuple[str, tuple[float, float, float], float, int, float]) -> PictureBoxes:
    """Labels (name, place, truncation, occlusion, height in pixels), all of a car's size."""
    boxes = np.array([[*place, 4.0, 1.8, 1.5, 0.0] for _, place, *_ in rows], np.float32).reshape(-1, 7)
    matrix = np.array([[600, -700, 0, 0], [180, 0, -700, 0], [1, 0, 0, 0]], float)
    return PictureBoxes(
        0,
        "lidar",
        boxes,
        tuple(row[0] for row in rows),
        tuple(range(len(rows))),
        truncated=np.array([row[2] for row in rows], float),
        occluded=np.array([row[3] for row in rows], np.int64),
        height_px=np.array([row[4] for row in rows], float),
        projection=matrix,
        image_size=(1242, 375),
    )


def figure(truth: Boxes, boxes: np.ndarray, labels: tuple[str, ...], title: str, points: int = 1000) -> Scene:
    scores = np.full(len(boxes), 0.9, np.float32)
    inside = np.full(len(truth.boxes), points)
    return {key.title: scene for key, scene in scenes(truth, inside, boxes, labels, scores)}[title]


def test_a_label_is_a_box_in_the_lidar_frame(folder: Path) -> None:
    ((pose, boxes, sweep),) = [tuple(e.samples()) for e in episodes(str(folder))]
    assert isinstance(pose, EgoPose) and isinstance(boxes, PictureBoxes) and isinstance(sweep, Sweep)
    assert boxes.labels == ("car",)
    np.testing.assert_allclose(boxes.boxes, [[20.3, -2.0, -1.7 + 0.75, 4.2, 1.8, 1.5, 0.0]], atol=1e-5)
    assert boxes.height_px.tolist() == [60] and boxes.occluded.tolist() == [1]
    ((left, top, right, bottom),) = rectangles(boxes, boxes.boxes)
    # The near face is 20 - 2.1 m from the camera, 1.1 to 2.9 m to its right, 0.2 to 1.7 m below it.
    np.testing.assert_allclose(right, 600 + 700 * 2.9 / 17.9, atol=0.01)
    np.testing.assert_allclose([top, bottom], [180 + 700 * 0.2 / 22.1, 180 + 700 * 1.7 / 17.9], atol=0.01)
    assert left == pytest.approx(600 + 700 * 1.1 / 22.1, abs=0.01)


def test_of_a_labelled_frame_only_what_its_picture_shows_is_trained_on(folder: Path, tmp_path: Path) -> None:
    points = np.array([[20, 0, -1, 0], [-20, 0, -1, 0], [10, 30, -1, 0], [21, -2.1, -1, 0]], np.float32)
    points.tofile(folder / "velodyne" / "000007.bin")
    sweeps = open_sweeps(str(folder), LidarConfig(), tmp_path / "cache")
    labels = sweeps.labels(0)
    assert len(sweeps) == 1 and labels is not None
    np.testing.assert_allclose(sweeps.cloud(0), points[[0, 3]], atol=1e-3)  # not what is behind or far to the side
    assert labels.names == ("car",) and labels.points.tolist() == [1]


def test_damaged_frames_are_refused_with_the_file_and_the_remedy(folder: Path) -> None:
    label = folder / "label_2" / "000007.txt"
    label.write_text("Car 0 0 0 1 2\n")
    with pytest.raises(UserError, match=r"000007.txt' line 1: .* copy the labels again"):
        read_labels(label, folder / "calib" / "000007.txt")
    (folder / "calib" / "000007.txt").write_text("P2: 1 2 3\n")
    with pytest.raises(UserError, match=r"no line 'P2:' with 12 numbers"):
        read_labels(label, folder / "calib" / "000007.txt")
    label.unlink()
    with pytest.raises(UserError, match=r"label_2/000007.txt is missing"):
        episodes(str(folder))


def test_levels_of_kitti_ask_for_height_occlusion_and_truncation() -> None:
    truth = frame(
        ("car", (15, 0, -1), 0.0, 0, 80),
        ("car", (20, 6, -1), 0.0, 1, 60),
        ("car", (20, -6, -1), 0.4, 0, 60),
        ("car", (40, 0, -1), 0.0, 0, 24),
        ("car", (30, 8, -1), 0.0, 3, 60),
    )
    none = np.zeros((0, 7), np.float32)
    objects = [
        figure(truth, none, (), f"detection_ap_bev_car_{level}").objects for level in ("easy", "moderate", "hard")
    ]
    assert objects == [1, 2, 3]


def test_neighbouring_classes_are_ignored_and_others_are_background() -> None:
    truth = frame(("van", (15, 0, -1), 0, 0, 80), ("truck", (20, 6, -1), 0, 0, 80), ("car", (15, -5, -1), 0, 0, 80))
    scene = figure(truth, truth.boxes, ("car",) * 3, "detection_ap_3d_car_easy")
    assert counts(scene, ALL, 0.7).tolist() == [[1, 1]]  # the car is found, the van does not count, the truck is none
    simulated = Boxes(0, "lidar", truth.boxes, truth.labels, truth.track_ids)
    scene = figure(simulated, truth.boxes, ("car",) * 3, "detection_ap_3d_car_easy")
    assert counts(scene, ALL, 0.7).tolist() == [[1, 0]]
    sitting = frame(("person_sitting", (15, 0, -1), 0, 0, 80))
    scene = figure(sitting, sitting.boxes, ("pedestrian",), "detection_ap_bev_pedestrian_easy")
    assert counts(scene, ALL, 0.5).tolist() == [[0, 0]]


def test_detections_where_nobody_looked_are_not_false_alarms() -> None:
    truth = frame(("car", (15, 0, -1), 0, 0, 80))
    behind, aside, seen = [-15.0, 0, -1], [10.0, 30, -1], [25.0, 5, -1]
    boxes = np.array([[*place, 4.0, 1.8, 1.5, 0.0] for place in (behind, aside, seen)], np.float32)
    scene = figure(truth, boxes, ("car",) * 3, "detection_ap_bev_car_easy")
    assert counts(scene, ALL, 0.7).tolist() == [[0, 1]]
    far = np.array([[60.0, 0, -1, 4.0, 1.8, 1.5, 0.0]], np.float32)  # 19 px high
    scene = figure(truth, far, ("car",), "detection_ap_bev_car_hard")
    assert counts(scene, ALL, 0.7).tolist() == [[0, 0]]


def test_levels_without_a_picture_ask_for_points_and_nearness() -> None:
    boxes = np.array([[x, 0, -1, 4.0, 1.8, 1.5, 0.0] for x in (-10, 40, 48)], np.float32)
    truth = Boxes(0, "lidar", boxes, ("car",) * 3, (1, 2, 3))

    def objects(level: str, points: int) -> int:
        return figure(truth, boxes[:0], (), f"detection_ap_bev_car_{level}", points).objects

    assert [objects(level, 1000) for level in ("easy", "moderate", "hard")] == [1, 2, 3]
    assert [objects(level, 30) for level in ("easy", "moderate", "hard")] == [0, 2, 3]
    assert [objects(level, 4) for level in ("easy", "moderate", "hard")] == [0, 0, 0]
    scene = figure(truth, boxes, ("car",) * 3, "detection_ap_bev_car_easy")
    assert average_precision([scene], 0.7) == 100  # those too far away for the level are no false alarms


def test_a_box_at_the_wrong_height_counts_seen_from_above_only() -> None:
    truth = frame(("car", (15, 0, -1), 0, 0, 80))
    lifted = truth.boxes + np.array([0, 0, 0.6, 0, 0, 0, 0], np.float32)
    assert average_precision([figure(truth, lifted, ("car",), "detection_ap_bev_car_easy")], 0.7) == 100
    assert average_precision([figure(truth, lifted, ("car",), "detection_ap_3d_car_easy")], 0.7) == 0


def test_table_of_a_card_has_a_row_for_each_class_that_was_there() -> None:
    table = detection_table({"detection_ap_bev_car_easy": 81.25, "detection_ap_3d_car_hard": 3.0, "other": 1.0})
    (row,) = [line for line in table.splitlines() if line.startswith("| car")]
    assert row == "| car | 81.2 | – | – | – | – | 3.0 |" and "pedestrian" not in table
    assert detection_table({"other": 1.0}) == ""
