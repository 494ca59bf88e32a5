"""What a lidar bundle says of its model: grid, network, forecast. Metres, seconds, sensor frame (x forward, z up)."""

from __future__ import annotations

import math

from pydantic import Field, model_validator
from typing_extensions import Self

from wm_ros.bundle import StrictModel


class VoxelConfig(StrictModel):
    """The 3D grid that the encoder sees.

    Attributes:
        range_m: x0, y0, z0, x1, y1, z1 in the sensor frame. size_m: edges of a voxel along x, y, z.
        max_points: of one voxel, the first ones count. max_voxels: of one sweep, the first ones seen count.
    """

    range_m: tuple[float, float, float, float, float, float] = (-51.2, -51.2, -3.0, 51.2, 51.2, 1.0)
    size_m: tuple[float, float, float] = (0.2, 0.2, 0.1)
    max_points: int = Field(default=5, ge=1)
    max_voxels: int = Field(default=40_000, ge=1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x; one more in z than fits, as in the paper's grid."""
        low, high = self.range_m[:3], self.range_m[3:]
        x, y, z = (round((b - a) / size) for a, b, size in zip(low, high, self.size_m, strict=True))
        return z + 1, y, x


class EncoderConfig(StrictModel):
    """The 12-convolution backbone of AD-L-JEPA; the paper has channels 16, 32, 64, 64 and out 128.

    Attributes:
        channels: of the four levels. out_channels: of each height of the BEV map.
        strides: (z, y, x) of the convolutions that enter levels 2, 3 and 4.
        dilate: kernel 3 at these strides as in the paper; without, the kernel is as large as the stride, which makes
            far fewer sites and is how the lite size keeps to its time.
    """

    channels: tuple[int, int, int, int] = (8, 16, 32, 32)
    out_channels: int = 32
    strides: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]] = ((2, 2, 2), (2, 2, 2), (2, 1, 1))
    dilate: bool = False


class OccupancyConfig(StrictModel):
    """The forecast and the grid on which it is made and measured.

    Attributes:
        horizons_s: seconds ahead. sweeps: how many past sweeps it sees, the newest included.
        older: further sweeps that the head sees, by how many sweeps back they lie: what the car has passed or what was
            hidden a moment ago stays known. The baselines do not see them.
        cells: along each side of the square grid around the sensor. cell_m: edge of a cell.
        band_m: the obstacle band, metres above the road. range_m: points nearer or farther are left out.
        azimuth_bins: of the visibility test. channels: of the head's scales, each half as fine as the one before.
        past_embedding: how many sweeps back the second BEV embedding lies that the head sees.
    """

    horizons_s: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0)
    sweeps: int = Field(default=5, ge=1)
    older: tuple[int, ...] = ()
    cells: int = Field(default=256, ge=8)
    cell_m: float = Field(default=0.4, gt=0)
    band_m: tuple[float, float] = (0.33, 2.73)
    range_m: tuple[float, float] = (2.5, 80.0)
    azimuth_bins: int = Field(default=900, ge=8)
    channels: tuple[int, ...] = Field(default=(24, 40, 64), min_length=2)
    past_embedding: int = Field(default=4, ge=1)

    @property
    def history(self) -> int:
        """How many sweeps must be kept, the newest included."""
        return max(self.sweeps, self.past_embedding + 1, *(k + 1 for k in self.older))

    @model_validator(mode="after")
    def _older_are_older(self) -> Self:
        if any(k < self.sweeps for k in self.older) or list(self.older) != sorted(set(self.older)):
            raise ValueError(f"older {self.older} must ascend and start at sweeps ({self.sweeps}) or later")
        return self


class DetectionConfig(StrictModel):
    """The head that finds road users; its grid has two by two cells under each cell of the BEV map.

    Attributes:
        classes: a heat map each. channels: at the BEV map's scale and at half of it.
        min_points: objects with fewer points of the sweep inside are neither shown nor held against the head.
        min_radius_cells: of the bell around a centre in the heat maps' targets.
        box_weight: of the box regression against the heat maps' loss.
        min_score, max_boxes: what is said at most. max_iou: of two detections of a class seen from above.
    """

    classes: tuple[str, ...] = ("car", "pedestrian", "cyclist")
    channels: tuple[int, int] = (32, 48)
    min_points: int = Field(default=5, ge=1)
    min_radius_cells: int = Field(default=2, ge=1)
    box_weight: float = Field(default=1.0, gt=0)
    min_score: float = Field(default=0.1, gt=0, lt=1)
    max_boxes: int = Field(default=200, ge=1)
    max_iou: float = Field(default=0.2, ge=0, le=1)


class LidarConfig(StrictModel):
    """Architecture and preprocessing of `lidar`.

    Attributes:
        detection: the head that finds road users; None for a bundle without one.
        sensor_height_m: above the road; the obstacle band is measured from the road.
        token_grid: the BEV map is pooled to this many tokens along each side.
        extrapolate_s: how far a pose may lie from the newest odometry; farther, the forecast is withheld.
    """

    voxels: VoxelConfig = VoxelConfig()
    encoder: EncoderConfig = EncoderConfig()
    occupancy: OccupancyConfig = OccupancyConfig()
    detection: DetectionConfig | None = None
    sensor_height_m: float = Field(default=1.73, gt=0)
    token_grid: int = Field(default=8, ge=1)
    extrapolate_s: float = Field(default=0.15, gt=0)

    @model_validator(mode="after")
    def _strides_fit(self) -> Self:
        for axis, name in ((1, "y"), (2, "x")):
            stride = math.prod(level[axis] for level in self.encoder.strides)
            if self.voxels.shape[axis] % stride:
                raise ValueError(
                    f"voxels.range_m and size_m give {self.voxels.shape[axis]} voxels along {name}; the strides of the "
                    f"encoder need a multiple of {stride}"
                )
        return self
