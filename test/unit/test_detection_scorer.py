"""`wm eval` scores what was found against what a recording says was there, beside a baseline without learning."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.data.simulator import drive_samples
from wm_ros.evaluation.detection import DetectionScorer
from wm_ros.evaluation.metrics import summarise
from wm_ros.lidar.boxes import bev_iou
from wm_ros.lidar.clusters import detect_clusters
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.grid import Scan
from wm_ros.types import BevTokens, Boxes, Detections, LidarPrediction, Sample, Sweep

CONFIG = LidarConfig()


def said(sample: Sample, boxes: np.ndarray, labels: tuple[str, ...], score: float = 0.9) -> LidarPrediction:
    stamp = sample.stamp_ns
    scores = np.full(len(boxes), score, np.float32)
    found = Detections(stamp, "lidar", boxes, labels, tuple(range(len(boxes))), scores=scores)
    none = np.zeros((0, 0, 0), np.float32)
    tokens = BevTokens(stamp, "lidar", np.zeros((1, 1), np.float32))
    return LidarPrediction(stamp, "lidar", tokens, none, 0.8, None, detections=found)


def near_car(stamp_ns: int = 5) -> tuple[Sweep, Boxes]:
    """The rear and the left side of a car ahead of the sensor, and a road."""
    random = np.random.default_rng(0)
    z = random.uniform(-1.3, -0.3, (300, 1))
    rear = np.concatenate([np.full((300, 1), 10.0), random.uniform(-3.9, -2.2, (300, 1)), z], 1)
    side = np.concatenate([random.uniform(10, 13.9, (300, 1)), np.full((300, 1), -2.2), z], 1)
    road = np.concatenate([random.uniform(-20, 20, (500, 2)), np.full((500, 1), -1.73)], 1)
    xyz = np.concatenate([rear, side, road])
    points = np.concatenate([xyz, np.zeros((len(xyz), 1))], 1).astype(np.float32)
    box = np.array([[11.95, -3.05, -0.95, 3.9, 1.7, 1.55, 0.0]], np.float32)
    return Sweep(stamp_ns, "lidar", points), Boxes(stamp_ns, "lidar", box, ("car",), (1,))


@pytest.fixture(scope="module")
def drive() -> list[Sample]:
    return list(drive_samples(3, 0.3, beams=32, azimuths=600))


def test_the_truth_scores_100_and_nothing_scores_0(drive) -> None:
    for perfect in (True, False):
        scorer = DetectionScorer(CONFIG)
        boxes = Boxes(0, "", np.zeros((0, 7), np.float32), (), ())
        for sample in drive:
            scorer.observe(sample)
            if isinstance(sample, Boxes):
                boxes = sample
            elif isinstance(sample, Sweep):
                rows = boxes.boxes if perfect else boxes.boxes[:0]
                labels = boxes.labels if perfect else ()
                scorer.predict(said(sample, rows, labels))
        entries = summarise([scorer.metrics()])
        assert any(name.startswith("detection_ap_bev_car") for name in entries)
        for name, entry in entries.items():
            assert entry["value"] == (100 if perfect else 0), name
            assert entry["n"] == 3 and set(entry["baselines"]) == {"clusters"}
        (picture,) = scorer.pictures().values()
        assert picture.ndim == 3 and picture.std() > 0


def test_sweep_boxes_and_detections_may_come_in_any_order_but_belong_to_one_stamp() -> None:
    sweep, boxes = near_car()
    for order in ((sweep, boxes), (boxes, sweep)):
        scorer = DetectionScorer(CONFIG)
        scorer.observe(order[0])
        scorer.predict(said(sweep, boxes.boxes, boxes.labels))
        scorer.observe(order[1])
        assert summarise([scorer.metrics()])["detection_ap_3d_car_easy"]["value"] == 100
    scorer = DetectionScorer(CONFIG)
    scorer.observe(sweep)
    scorer.predict(said(sweep, boxes.boxes, boxes.labels))
    scorer.observe(Boxes(6, "lidar", boxes.boxes, boxes.labels, (1,)))
    assert scorer.metrics() == []


def test_heaps_find_a_car_that_stands_free() -> None:
    sweep, boxes = near_car()
    rows, names, scores = detect_clusters(Scan.of(sweep.points, CONFIG).band, CONFIG.sensor_height_m)
    assert names == ("car",) and 0 < scores[0] < 1
    assert bev_iou(rows, boxes.boxes)[0, 0] > 0.7
    again = detect_clusters(Scan.of(sweep.points[::-1], CONFIG).band, CONFIG.sensor_height_m)
    assert bev_iou(again[0], rows)[0, 0] > 0.9
    none = detect_clusters(np.zeros((0, 3), np.float32), 1.73)
    assert none[0].shape == (0, 7) and none[1] == ()
