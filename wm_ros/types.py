"""The vocabulary of the system: what sensors say (samples) and what the models say (predictions).

All of them are frozen and carry units in their names. Frames follow REP 103 (x forward, y left, z up,
metres, radians) and REP 105 (`odom` is continuous). `stamp_ns` is the time at which the sensor measured;
a prediction carries the stamp of the newest sample it used, never the time of publication.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

HandKind = Literal["wrist_m", "box", "pose"]
HAND_COLUMNS: dict[HandKind, tuple[str, ...]] = {
    "wrist_m": ("x_m", "y_m", "z_m"),
    "box": ("centre_u", "centre_v", "width", "height"),
    "pose": ("x_m", "y_m", "z_m", "rx_rad", "ry_rad", "rz_rad", "gripper"),
}


@dataclass(frozen=True)
class Sample:
    """Anything measured or said at one time.

    Attributes:
        stamp_ns: time of measurement, nanoseconds since the epoch of the clock in use.
        frame_id: coordinate frame of the values ("" where there is none).
    """

    stamp_ns: int
    frame_id: str


# ----------------------------------------------------------------------------- samples


@dataclass(frozen=True)
class Sweep(Sample):
    """One turn of a LiDAR. `points`: (N, 4) float32, x, y, z in metres in the sensor frame, intensity 0..1."""

    points: Float


@dataclass(frozen=True)
class EgoPose(Sample):
    """Pose of the ego body in `frame_id` (REP 105 `odom`).

    Attributes:
        child_frame_id: the body frame (`base_link` or the sensor's).
        matrix: (4, 4) float64, maps homogeneous points of the body frame into `frame_id`.
        linear_mps, angular_radps: (3,) float64 twist in the body frame, zeros where unknown.
    """

    child_frame_id: str
    matrix: NDArray[np.float64]
    linear_mps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    angular_radps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True)
class Frame(Sample):
    """One camera image. `rgb`: (H, W, 3) uint8."""

    rgb: NDArray[np.uint8]


@dataclass(frozen=True)
class WristFrame(Sample):
    """One image of a camera that moves with the hand, beside that of `Frame`. `rgb`: (H, W, 3) uint8.

    A type of its own, so that a model of one camera never takes it for that camera.
    """

    rgb: NDArray[np.uint8]


@dataclass(frozen=True)
class Joints(Sample):
    """Measured joints, addressed by name. `position_rad`: (J,) float64; `velocity_radps`: (J,) or empty."""

    names: tuple[str, ...]
    position_rad: NDArray[np.float64]
    velocity_radps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class JointCommand(Joints):
    """Commanded joints: what a controller was asked to reach. Same fields as `Joints`."""


@dataclass(frozen=True)
class Instruction(Sample):
    """What the robot was told to do, in words."""

    text: str


@dataclass(frozen=True)
class EpisodeMark(Sample):
    """An episode begins here or, where `begins` is False, what follows belongs to none."""

    begins: bool


@dataclass(frozen=True)
class Boxes(Sample):
    """True or detected boxes. `boxes`: (B, 7) float32, centre x y z, length, width, height (m), yaw (rad, CCW)."""

    boxes: Float
    labels: tuple[str, ...]
    track_ids: tuple[int, ...]


@dataclass(frozen=True)
class PictureBoxes(Boxes):
    """Boxes that people drew with a camera picture before them: what it did not show is not labelled.

    Attributes:
        truncated: (B,) share of the object outside of the picture. occluded: (B,) 0 fully seen, 1 partly, 2 largely
            hidden, 3 unknown. height_px: (B,) of the rectangle around it in the picture.
        projection: (3, 4), points of `frame_id` → homogeneous pixels. image_size: width, height of the picture.
    """

    truncated: NDArray[np.float64]
    occluded: NDArray[np.int64]
    height_px: NDArray[np.float64]
    projection: NDArray[np.float64]
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Detections(Boxes):
    """Boxes that a model found, by falling score; `track_ids` only number them. `scores`: (B,) float32 in 0..1."""

    scores: Float


@dataclass(frozen=True)
class HandTrajectory(Sample):
    """One hand over time, past (offsets <= 0) or to come (offsets > 0): of a robot, a person in a video, or a gripper.

    Attributes:
        side: "left" or "right".
        offsets_s: (T,) float64, seconds relative to `stamp_ns`.
        values: (T, columns of `kind`) float32; rows that are not valid mean nothing.
        valid: (T,) bool, False where the hand was not measured or not seen.
        kind: what the values are (`HAND_COLUMNS`), never mixed in one trajectory:
            "wrist_m" – wrist x, y, z in metres in `frame_id`, by forward kinematics;
            "box" – rectangle around the hand in the image of the camera `frame_id`: centre from the left and the top
            edge, width, height; horizontal ones as shares of the image's width, vertical ones of its height, 0..1;
            "pose" – end effector in `frame_id`: x, y, z in metres, rotation vector in radians, gripper from 0 (closed)
            to 1 (open), NaN where that is not known.

    Raises:
        ValueError: the kind is unknown, or an array has not the shape that the kind and `offsets_s` ask for.
    """

    side: str
    offsets_s: NDArray[np.float64]
    values: Float
    valid: NDArray[np.bool_]
    kind: HandKind = "wrist_m"

    def __post_init__(self) -> None:
        if self.kind not in HAND_COLUMNS:
            raise ValueError(f"HandTrajectory.kind: '{self.kind}' is none of {', '.join(HAND_COLUMNS)}")
        steps, columns = len(self.offsets_s), HAND_COLUMNS[self.kind]
        if self.values.shape != (steps, len(columns)):
            wanted = f"({steps}, {len(columns)}) of kind {self.kind}: {', '.join(columns)}"
            raise ValueError(f"HandTrajectory.values: shape {self.values.shape}, not {wanted}")
        if self.valid.shape != (steps,):
            raise ValueError(f"HandTrajectory.valid: shape {self.valid.shape}, not ({steps},) as offsets_s")

    @property
    def position_m(self) -> Float:
        """(T, 3) wrist positions in metres. Raises ValueError for another kind than "wrist_m"."""
        if self.kind != "wrist_m":
            raise ValueError(f"HandTrajectory.position_m: the {self.side} hand is of kind {self.kind}, not wrist_m")
        return self.values


# ----------------------------------------------------------------------------- parts of predictions


@dataclass(frozen=True)
class StateTokens(Sample):
    """Compact state of one image, `tokens`: (2, D) float32. It is a prediction of `state` and a sample for others."""

    tokens: Float


@dataclass(frozen=True)
class BevTokens(Sample):
    """Pooled BEV embedding, `tokens`: (T, C) float32. A prediction of `lidar` and a sample for `policy`."""

    tokens: Float


@dataclass(frozen=True)
class OccupancyForecast(Sample):
    """Probability that a cell is occupied at each horizon, in the frame of the sensor at `stamp_ns`.

    Attributes:
        horizons_s: (K,) seconds ahead.
        probability: (K, H, W) float32 in 0..1; row = y, column = x, both ascending (as in OccupancyGrid).
        cell_m: edge of a cell.
        origin_m: (x, y) of the outer corner of cell [0, 0].
    """

    horizons_s: tuple[float, ...]
    probability: Float
    cell_m: float
    origin_m: tuple[float, float]


@dataclass(frozen=True)
class FutureFrames(Sample):
    """Images the camera will see. `rgb`: (K, H, W, 3) uint8 at `horizons_s` seconds ahead.

    `hand_error_m`: how far the hand in each of them is from where the trajectory has it, m; empty where nobody looked.
    """

    horizons_s: tuple[float, ...]
    rgb: NDArray[np.uint8]
    hand_error_m: tuple[float, ...] = ()


@dataclass(frozen=True)
class JointForecast(Sample):
    """Joints to come. `position_rad`: (T, J) float32 at `offsets_s` (T,) seconds after `stamp_ns`."""

    names: tuple[str, ...]
    offsets_s: NDArray[np.float64]
    position_rad: Float


@dataclass(frozen=True)
class ActionChunk(JointForecast):
    """Joint commands to come: what the policy asks for. Same fields as `JointForecast`."""


@dataclass(frozen=True)
class MotionQuery(JointForecast):
    """A motion that somebody asks about: what would the camera see if the joints moved so? Offsets count from now.

    Same fields as `JointForecast`; joints that it does not name stay where they are.
    """


# ----------------------------------------------------------------------------- predictions, one per capability


@dataclass(frozen=True)
class LidarPrediction(Sample):
    """What `lidar` says of a sweep.

    Attributes:
        tokens: pooled BEV embedding.
        embedding: (C, H, W) float32 full BEV map (row = y, column = x, ascending), or None where not asked for.
        embedding_cell_m: edge of a BEV cell.
        occupancy: the forecast, or None where ego-motion is unknown; `withheld` then says why.
        detections: road users, or None where not asked for or where the bundle has no head for them.
    """

    tokens: BevTokens
    embedding: Float
    embedding_cell_m: float
    occupancy: OccupancyForecast | None
    withheld: str = ""
    detections: Detections | None = None


@dataclass(frozen=True)
class StatePrediction(Sample):
    """What `state` says of an image.

    Attributes:
        tokens: the state, (2, D).
        motion: tokens minus those of the previous image, same shape; None for the first image.
        reconstruction: (H, W, 3) uint8 drawn back from the tokens, or None where not asked for.
    """

    tokens: StateTokens
    motion: StateTokens | None
    reconstruction: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class FuturePrediction(Sample):
    """What `future` says.

    Attributes:
        hands: most probable trajectory of each hand, offsets > 0.
        samples: (S, sides, T, 3) float32 sampled trajectories of the hands, same offsets; `probability`: (S,).
        joints: the joints to come.
        frames: the images to come, conditioned on `hands`; None where no image has arrived or not asked for.
        subtask: a phrase for what the robot is about; "" where the bundle does not say.
    """

    hands: tuple[HandTrajectory, ...]
    samples: Float
    probability: Float
    joints: JointForecast
    frames: FutureFrames | None = None
    subtask: str = ""


@dataclass(frozen=True)
class PolicyPrediction(Sample):
    """What `policy` asks for."""

    chunk: ActionChunk


Prediction = LidarPrediction | StatePrediction | FuturePrediction | PolicyPrediction
