"""LiDAR geometry, voxels, forecasts and the behaviour of the capability."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_ros.bundle import BundleConfig, TrainingRecord, save_bundle
from wm_ros.errors import BundleError
from wm_ros.evaluation.lidar import LidarScorer
from wm_ros.lidar import Lidar, baselines, grid, scoring
from wm_ros.lidar.config import EncoderConfig, LidarConfig, OccupancyConfig, VoxelConfig
from wm_ros.lidar.encoder import to_sparse
from wm_ros.lidar.model import LidarModel
from wm_ros.lidar.occupancy import warp
from wm_ros.lidar.voxels import voxelise
from wm_ros.training.lidar_windows import Augmentation
from wm_ros.types import EgoPose, Sweep

CONFIG = LidarConfig(
    voxels=VoxelConfig(range_m=(-12.8, -12.8, -3.0, 12.8, 12.8, 1.0)),
    encoder=EncoderConfig(channels=(4, 4, 8, 8), out_channels=4),
    occupancy=OccupancyConfig(cells=64, channels=(8, 8, 8)),
    token_grid=4,
)
GRID = CONFIG.occupancy
SECOND = 1_000_000_000


def shift(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def room(pose: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Walls and floor of a room, (N, 4), seen from `pose`."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(-10, 10, 3000)
    walls = np.concatenate([np.stack([side, np.full(3000, 10.2)], 1), np.stack([np.full(3000, -7.8), side], 1)])
    floor = rng.uniform(-9, 9, (3000, 2))
    xyz = np.concatenate(
        [np.c_[walls, rng.uniform(-1.2, 0.8, 6000)], np.c_[floor, np.full(3000, -1.73)]],
    )
    to_here = np.linalg.inv(pose if pose is not None else np.eye(4))
    xyz = xyz @ to_here[:3, :3].T + to_here[:3, 3]
    return np.c_[xyz, rng.random(len(xyz))].astype(np.float32)


# ------------------------------------------------------------------------------ voxels


def test_voxel_is_the_mean_of_its_first_five_points() -> None:
    points = np.array([[1.01 + 0.01 * i, 2.05, 0.05, i / 10] for i in range(7)] + [[5, 5, 0.05, 0]], np.float32)
    voxels = voxelise(points, CONFIG.voxels)
    assert len(voxels.features) == 2
    np.testing.assert_allclose(voxels.features[0], points[:5].mean(0), rtol=1e-6)


def test_over_the_cap_the_voxels_seen_first_stay() -> None:
    points = np.array([[i * 0.5 - 5, 0, 0, 0] for i in np.random.default_rng(0).permutation(20)], np.float32)
    kept = voxelise(points, CONFIG.voxels.model_copy(update={"max_voxels": 6}))
    np.testing.assert_allclose(np.sort(kept.features[:, 0]), np.sort(points[:6, 0]))


def test_points_outside_or_not_finite_are_left_out() -> None:
    points = np.array([[0, 0, 0, 0], [99, 0, 0, 0], [0, 0, 1.05, 0], [np.nan, 0, 0, 0], [0, 0, 0, np.inf]], np.float32)
    assert len(voxelise(points, CONFIG.voxels).features) == 1


# ------------------------------------------------------------------------------ grid


def test_band_is_measured_from_the_road() -> None:
    points = np.array([[5, 0, z, 0] for z in (-1.5, -1.3, 0.9, 1.1)] + [[2.0, 0, 0, 0], [81, 0, 0, 0]], np.float32)
    assert grid.Scan.of(points, CONFIG).band[:, 2].tolist() == pytest.approx([-1.3, 0.9])


def test_a_ray_is_seen_until_it_leaves_the_band() -> None:
    points = np.array([[10, 0.01, -1.73, 0], [0.01, 12, 2.0, 0], [-7, -0.01, 0, 0]], np.float32)
    reach = grid.Scan.of(points, CONFIG).reach_m
    assert reach[0] == pytest.approx(10 * 1.4 / 1.73, rel=1e-4)  # to the ground: until 0.33 m above it
    assert reach[224] == pytest.approx(6.0, rel=1e-4)  # upwards: until 2.73 m above the road
    assert reach[450] == pytest.approx(7.0, rel=1e-4)
    assert (reach > 0).sum() == 3


def test_raster_rows_are_y_and_columns_x_ascending() -> None:
    filled = grid.raster(np.array([[3.9, -2.1, 0]], np.float32), GRID)
    assert np.argwhere(filled).tolist() == [[32 - 6, 32 + 9]]


def test_truth_of_a_standing_world_is_where_it_was_whatever_the_sensor_does() -> None:
    there = shift(2.0, -1.0, 0.3)
    here_raster = grid.raster(grid.Scan.of(room(), CONFIG).band, GRID)
    occupied, scored = grid.truth(grid.Scan.of(room(there), CONFIG), there, GRID)
    inner = (slice(4, 60), slice(4, 60))
    assert (occupied[inner] != here_raster[inner]).mean() < 0.01
    assert (scored & occupied == occupied).all() and scored.mean() > occupied.mean()


def test_what_hides_behind_a_wall_is_not_scored() -> None:
    scan = grid.Scan(np.array([[4, 0, 0]], np.float32), np.full(900, 4.2, np.float32))
    _, scored = grid.truth(scan, np.eye(4), GRID)
    x, y = grid.centres(GRID)
    assert not scored[np.hypot(x, y) > 4.9].any() and scored[np.hypot(x, y) < 4.1].all()


def test_augmentation_turns_points_motion_and_visibility_alike() -> None:
    change = Augmentation(flip=True, bins=100, scale=1.05)
    there = shift(1.0, 2.0, 0.2)
    scan = grid.Scan.of(room(there), CONFIG)
    moved_then_changed = change.points(grid.moved(scan.band, there))
    changed_then_moved = grid.moved(change.scan(scan).band, change.motion(there))
    np.testing.assert_allclose(moved_then_changed, changed_then_moved, atol=1e-4)
    point = np.array([[3.0, 4.0, 0.0]], np.float32)
    lone = change.scan(grid.Scan(point, np.zeros(900, np.float32)))
    before = grid.azimuth_bin(point[:, 0], point[:, 1], 900)[0]
    reach = np.zeros(900, np.float32)
    reach[before] = 5.0
    after = grid.azimuth_bin(lone.band[:, 0], lone.band[:, 1], 900)[0]
    assert change.scan(grid.Scan(point, reach)).reach_m[after] == pytest.approx(5.25)


def test_embedding_is_warped_as_points_are() -> None:
    there = shift(1.6, -0.8, np.pi / 2)  # pose of the earlier sweep in the present frame
    past = torch.zeros(1, 1, 32, 32)
    past[0, 0, 20, 10] = 1.0  # centre (-4.4, 3.6) in its frame
    now = warp(past, torch.from_numpy(np.linalg.inv(there))[None], 0.8)
    x, y = (there @ [-4.4, 3.6, 0, 1])[:2]
    assert now[0, 0, int(y // 0.8) + 16, int(x // 0.8) + 16] == pytest.approx(1.0, abs=1e-4)


# ------------------------------------------------------------------------------ baselines and figures


def test_there_are_seventeen_features_the_last_a_constant() -> None:
    past = baselines.Past.of([grid.Scan.of(room(), CONFIG)] * 3, [np.eye(4)] * 3, GRID)
    found = baselines.features(past, 1.4, GRID)
    assert found.shape == (17, 64, 64) and (found[-1] == 1).all() and np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], past.hold)


def test_logistic_regression_finds_the_weights_of_its_own_model() -> None:
    rng = np.random.default_rng(0)
    rows = np.c_[rng.normal(size=(40_000, 2)), np.ones(40_000)]
    weight = np.array([1.5, -1.0, -2.0])
    target = (rng.random(40_000) < 1 / (1 + np.exp(-rows @ weight))).astype(float)
    np.testing.assert_allclose(baselines.fit_logistic(rows, target), weight, atol=0.08)


def test_average_precision_from_histograms_equals_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.1
    score = (rng.normal(size=20_000) + 2 * truth).astype(np.float32)
    order = np.argsort(-score)
    hits = np.cumsum(truth[order])
    exact = (hits / np.arange(1, len(hits) + 1))[truth[order]].mean()
    total = scoring.histograms(score, truth, np.ones_like(truth))
    assert scoring.average_precision(total) == pytest.approx(exact, abs=5e-3)
    assert scoring.average_precision(scoring.histograms(np.zeros_like(score), truth, truth | True)) == pytest.approx(
        truth.mean()
    )


def test_cells_that_are_not_scored_do_not_count() -> None:
    truth, scored = np.array([True, False, True]), np.array([True, True, False])
    score = np.array([2.0, -2.0, -7.0], np.float32)
    assert scoring.histograms(score, truth, scored).sum() == 2
    assert scoring.overlap(score, 0.0, truth, scored).tolist() == [1, 1]
    assert scoring.cross_entropy(score, truth, scored) == pytest.approx([2 * np.log1p(np.exp(-2)), 2])


# ------------------------------------------------------------------------------ the capability


@pytest.fixture
def lidar() -> Lidar:
    torch.manual_seed(0)
    return Lidar(CONFIG, LidarModel(CONFIG))


def pose(stamp_ns: int, matrix: np.ndarray, **twist: np.ndarray) -> EgoPose:
    return EgoPose(stamp_ns, "odom", "base_link", matrix, **twist)


def test_tokens_without_odometry_but_no_forecast_and_a_reason(lidar: Lidar) -> None:
    said = lidar.step(Sweep(SECOND, "lidar", room()))
    assert said is not None and said.tokens.tokens.shape == (16, 8) and said.embedding.shape == (8, 32, 32)
    assert said.occupancy is None and "no odometry" in said.withheld


def test_forecast_at_every_horizon_in_the_frame_and_at_the_stamp_of_the_sweep(lidar: Lidar) -> None:
    lidar.step(pose(SECOND, np.eye(4)))
    said = lidar.step(Sweep(SECOND, "lidar", room()))
    assert said is not None and said.occupancy is not None and said.withheld == ""
    assert said.occupancy.probability.shape == (4, 64, 64) and said.occupancy.stamp_ns == SECOND
    assert said.occupancy.frame_id == "lidar" and said.occupancy.origin_m == (-12.8, -12.8)
    assert {"voxels", "encoder", "rasters", "forecast"} == set(lidar.timings_ms)


def test_pose_a_little_ahead_of_odometry_is_extrapolated_and_one_far_ahead_is_not(lidar: Lidar) -> None:
    for tick in range(3):
        lidar.step(pose(SECOND + tick * SECOND // 10, shift(0.5 * tick)))
    found, why = lidar._track.at(SECOND + 3 * SECOND // 10)
    assert why == "" and found is not None and found[0, 3] == pytest.approx(1.5)
    assert lidar._track.at(SECOND + 2 * SECOND)[0] is None
    said = lidar.step(Sweep(SECOND + 2 * SECOND, "lidar", room()))
    assert said is not None and said.occupancy is None and "older than the sweep" in said.withheld


def test_pose_between_two_is_interpolated_along_the_turn(lidar: Lidar) -> None:
    lidar.step(pose(0, shift(0, 0, 0.0)))
    lidar.step(pose(SECOND // 10, shift(1, 0, 0.2)))
    found, _ = lidar._track.at(SECOND // 20)
    np.testing.assert_allclose(found, shift(0.5, 0, 0.1), atol=1e-9)


def test_moving_sensor_in_a_standing_world_gives_rasters_that_agree(lidar: Lidar) -> None:
    seen = {}
    original = baselines.Past.of

    def spy(scans, moves, config):
        seen["past"] = original(scans, moves, config)
        return seen["past"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines.Past, "of", spy)
        for tick in range(5):
            stamp, there = SECOND + tick * SECOND // 10, shift(0.8 * tick, 0, 0.05 * tick)
            lidar.step(pose(stamp, there))
            lidar.step(Sweep(stamp, "lidar", room(there)))
    occupied = seen["past"].occupied
    assert len(occupied) == 5
    overlap = np.minimum(occupied[0], occupied[4]).sum() / np.maximum(occupied[0], occupied[4]).sum()
    assert overlap > 0.8


def test_a_clock_that_jumps_back_begins_a_new_history(lidar: Lidar) -> None:
    lidar.step(pose(10 * SECOND, np.eye(4)))
    lidar.step(Sweep(10 * SECOND, "lidar", room()))
    lidar.step(pose(SECOND, np.eye(4)))
    first = lidar.step(Sweep(SECOND, "lidar", room(seed=1)))
    fresh = Lidar(CONFIG, lidar.model)
    fresh.step(pose(SECOND, np.eye(4)))
    expected = fresh.step(Sweep(SECOND, "lidar", room(seed=1)))
    assert first is not None and expected is not None and first.occupancy is not None and expected.occupancy is not None
    np.testing.assert_array_equal(first.occupancy.probability, expected.occupancy.probability)


@pytest.mark.parametrize(
    "points",
    [np.zeros((0, 4)), np.full((5, 4), np.nan), np.full((5, 4), 500.0), np.zeros((5, 3)), np.zeros(7)],
    ids=["empty", "nan", "far", "three columns", "flat"],
)
def test_a_sweep_that_cannot_be_used_is_refused_with_a_reason(lidar: Lidar, points: np.ndarray) -> None:
    lidar.step(pose(SECOND, np.eye(4)))
    assert lidar.step(Sweep(SECOND, "lidar", points.astype(np.float32))) is None
    assert lidar.withheld


def test_odometry_that_is_not_finite_is_refused_and_said(lidar: Lidar) -> None:
    lidar.step(pose(SECOND, np.full((4, 4), np.nan)))
    said = lidar.step(Sweep(SECOND, "lidar", room()))
    assert said is not None and said.occupancy is None and "refused" in said.withheld


def test_weights_that_are_not_finite_give_no_prediction(lidar: Lidar) -> None:
    lidar.model.encoder.blocks[0].norm.bias.fill_(float("nan"))
    lidar.step(pose(SECOND, np.eye(4)))
    assert lidar.step(Sweep(SECOND, "lidar", room())) is None and "not finite" in lidar.withheld


def test_embedding_is_left_out_where_nobody_wants_it(lidar: Lidar) -> None:
    lidar.wanted = set()
    said = lidar.step(Sweep(SECOND, "lidar", room()))
    assert said is not None and said.embedding.size == 0


def test_warm_up_leaves_no_history(lidar: Lidar) -> None:
    lidar.warm_up()
    assert not lidar._history and lidar._track.newest_ns is None


# ------------------------------------------------------------------------------ bundle and scorer


@pytest.fixture
def bundle(tmp_path, lidar: Lidar):
    horizons = len(GRID.horizons_s)
    lidar.model.head.linear[:, 5] = 3.0  # the mean of the last sweeps
    fitted = {
        "logistic": lidar.model.head.linear.clone(),
        "calibration": torch.tensor([1.0, 0.0]).repeat(len(scoring.METHODS), horizons, 1),
        "threshold": torch.zeros(len(scoring.METHODS), horizons),
    }
    record = TrainingRecord(command="", data=[], data_licence="", seed=0, steps=0)
    config = BundleConfig[LidarConfig](capability="lidar", name="tiny", model=CONFIG, training=record)
    tensors = {f"model.{k}": v for k, v in lidar.model.state_dict().items()}
    save_bundle(tmp_path, config, tensors | {f"baseline.{k}": v for k, v in fitted.items()}, "# tiny\n")
    return tmp_path


def test_a_bundle_gives_back_the_same_predictions(bundle, lidar: Lidar) -> None:
    again = Lidar.from_bundle(bundle)
    for one in (lidar, again):
        one.step(pose(SECOND, np.eye(4)))
    ours, theirs = (one.step(Sweep(SECOND, "lidar", room())) for one in (lidar, again))
    np.testing.assert_array_equal(ours.tokens.tokens, theirs.tokens.tokens)
    np.testing.assert_array_equal(ours.occupancy.probability, theirs.occupancy.probability)


def test_a_bundle_of_another_capability_is_refused(bundle) -> None:
    text = (bundle / "config.json").read_text().replace('"capability": "lidar"', '"capability": "state"')
    (bundle / "config.json").write_text(text)
    with pytest.raises(BundleError, match="capability"):
        Lidar.from_bundle(bundle)


def drive(lidar: Lidar, scorer: LidarScorer, sweeps: int, moving: float = 0.8) -> None:
    for tick in range(sweeps):
        stamp, there = SECOND + tick * SECOND // 10, shift(moving * tick)
        for sample in (pose(stamp, there), Sweep(stamp, "lidar", room(there, seed=tick))):
            scorer.observe(sample)
            prediction = lidar.step(sample)
            if prediction is not None:
                scorer.predict(prediction)


def test_scorer_compares_all_methods_where_the_future_came(bundle) -> None:
    lidar, scorer = Lidar.from_bundle(bundle), LidarScorer(bundle)
    drive(lidar, scorer, 8)
    scores = scorer.finish()
    metrics = {m.name: m for m in scores.metrics}
    forecasts = {f"occupancy_{f}@{h}s" for f in ("ap", "iou", "bce") for h in ("0.1", "0.5")}
    assert set(metrics) == forecasts | {"embedding_rank", "embedding_std"}
    ap = metrics["occupancy_ap@0.1s"]
    assert set(ap.statistics) == {"model", *baselines.NAMES}
    assert all(len(rows) == 7 for rows in ap.statistics.values())
    value = {method: ap.pooled(rows.sum(0)) for method, rows in ap.statistics.items()}
    assert value["ego_hold"] > value["hold"] + 0.1  # the car moves through a standing room
    assert len(scores.rows) == 7 and len(scores.pictures) == 2


def test_scorer_gives_no_forecast_figures_without_odometry(bundle) -> None:
    lidar, scorer = Lidar.from_bundle(bundle), LidarScorer(bundle)
    sweep = Sweep(SECOND, "lidar", room())
    scorer.observe(sweep)
    scorer.predict(lidar.step(sweep))
    assert {m.name for m in scorer.finish().metrics} == {"embedding_rank", "embedding_std"}


def test_scores_are_the_same_again(bundle) -> None:
    found = []
    for _ in range(2):
        scorer = LidarScorer(bundle)
        drive(Lidar.from_bundle(bundle), scorer, 4)
        found.append(scorer.finish())
    assert found[0].rows == found[1].rows
    for one, other in zip(found[0].metrics, found[1].metrics, strict=True):
        for method in one.statistics:
            np.testing.assert_array_equal(one.statistics[method], other.statistics[method])


def test_a_grid_that_the_strides_do_not_divide_is_refused_with_the_number_to_choose() -> None:
    raw = CONFIG.model_dump()
    with pytest.raises(ValueError, match="multiple of 4"):
        LidarConfig.model_validate(raw | {"voxels": raw["voxels"] | {"size_m": (0.2, 0.19, 0.1)}})


def test_a_bev_map_of_another_grid_is_laid_under_the_forecast() -> None:
    """A front view as of the paper: what lies at a place ahead must lie there on the forecast's grid too."""
    front = VoxelConfig(range_m=(0.0, -6.4, -3.0, 12.8, 6.4, 1.0), size_m=(0.1, 0.1, 0.1))
    raw = CONFIG.model_dump() | {"voxels": front.model_dump()}
    model = LidarModel(LidarConfig.model_validate(raw)).eval()
    points = np.array([[8.2, 3.0, -1.0, 0.5]], np.float32) + np.random.default_rng(0).normal(0, 0.1, (200, 4))
    with torch.no_grad():
        bev = model.encode(to_sparse([voxelise(points.astype(np.float32), front)], front))
    side = CONFIG.occupancy.cells // 2
    assert bev.shape == (1, model.encoder.bev_channels, side, side)
    strength = bev[0].abs().sum(0)
    row, column = divmod(int(strength.argmax()), side)
    place_m = (np.array([column, row]) - side / 2 + 0.5) * model.cell_m
    np.testing.assert_allclose(place_m, [8.2, 3.0], atol=model.cell_m)
    assert not strength[:, : side // 2 - 1].any(), "nothing is known behind"
