"""Does pre-training help? The same encoder from three starts, read by a small head, on shares of the labels.

`wm probe` runs it (`lidar_probe_run`).
Starts: random weights, JEPA, and occupancy reconstruction with the same steps and sweeps. The head is asked two things
of every BEV cell of one sweep: whether it lies in a road user's box (labels), and whether it will be occupied 1 s later
(no labels, but sweeps with odometry). It is trained on a frozen encoder, or together with it. Each share of the
labelled episodes contains the smaller ones. Figures are average precision on episodes that no training has seen, with
intervals over seeds and episodes together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from wm_ros.bundle import StrictModel
from wm_ros.lidar import scoring
from wm_ros.lidar.config import LidarConfig
from wm_ros.lidar.encoder import BevEncoder, to_sparse
from wm_ros.lidar.knn import cell_classes
from wm_ros.lidar.objectives import Objective, make_objective
from wm_ros.lidar.voxels import Voxels, voxelise
from wm_ros.training.lidar_cache import Sweeps
from wm_ros.training.lidar_windows import SweepWindows

Start = Literal["random"] | Objective
MODES = ("frozen", "finetuned")
TASKS = ("road_user", "occupied_1s")


class ProbeConfig(StrictModel):
    """`config/probe.yaml`.

    Attributes:
        starts: how the encoder begins; the first one is held against each of the others.
        shares: of the labelled episodes. seeds: of weights, order and masks.
        pretrain_steps, pretrain_batch, pretrain_lr: of both objectives. calibrate: batches of whole sweeps after
            pre-training, which has seen half sweeps only, for the statistics of BatchNorm.
        probe_steps, probe_batch, probe_lr: of the head, and of the encoder where it is trained along at
            `encoder_lr_factor` of that rate.
        every: one of so many sweeps of a labelled episode is used. channels: of the head.
    """

    model: LidarConfig = LidarConfig()
    starts: tuple[Start, ...] = Field(("jepa", "random", "reconstruction"), min_length=2)
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    pretrain_steps: int = Field(200, ge=1)
    pretrain_batch: int = Field(4, ge=1)
    pretrain_lr: float = Field(2e-3, gt=0)
    calibrate: int = Field(10, ge=1)
    probe_steps: int = Field(80, ge=1)
    probe_batch: int = Field(4, ge=1)
    probe_lr: float = Field(3e-3, gt=0)
    encoder_lr_factor: float = Field(0.3, gt=0)
    every: int = Field(8, ge=1)
    channels: int = Field(32, ge=1)


@dataclass(frozen=True)
class Labelled:
    """One sweep with its answers.

    Attributes:
        episode: number. voxels: of the sweep. truth, scored: (tasks, rows, columns) bool.
    """

    episode: int
    voxels: Voxels
    truth: NDArray[np.bool_]
    scored: NDArray[np.bool_]


class ProbeHead(nn.Sequential):
    """Two convolutions and a read-out: (B, C, rows, columns) → (B, tasks, rows, columns) log-odds."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels_in),  # starts differ in scale; the head shall not
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, len(TASKS), 1),
        )


# ------------------------------------------------------------------------- data


def labelled_sweeps(sweeps: Sweeps, config: ProbeConfig) -> list[Labelled]:
    """Every so many sweeps that have boxes, with what is asked of them; the forecast where a sweep came 1 s later."""
    model = config.model
    windows = SweepWindows([sweeps], [set(np.unique(sweeps.table["episode"]).tolist())], model, augment=False)
    later = {row: index for index, (_, row) in enumerate(windows.rows)}
    horizon = model.occupancy.horizons_s.index(1.0)
    out = []
    for row in np.flatnonzero(sweeps.table["labelled"]).tolist()[:: config.every]:
        labels = sweeps.labels(row)
        assert labels is not None
        cells = model.occupancy.cells // 2
        road_user = cell_classes(labels.boxes, labels.names, model) > 0
        seen = np.ones((cells, cells), bool)
        if row in later:
            example = windows.example(later[row], -1)
            after, scored = (_coarse(example[name][horizon]) for name in ("truth", "scored"))
        else:
            after = scored = np.zeros((cells, cells), bool)
        voxels = voxelise(sweeps.cloud(row), model.voxels)
        if not later:  # frames that stand alone are labelled only as far as their picture: judge cells with points
            seen = _cells_with_points(voxels, model)
        truth, known = np.stack([road_user, after]), np.stack([seen, scored])
        out.append(Labelled(int(sweeps.table["episode"][row]), voxels, truth, known))
    return out


def _coarse(fine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = fine.shape
    return np.asarray(fine.reshape(rows // 2, 2, columns // 2, 2).any((1, 3)))


def _cells_with_points(voxels: Voxels, model: LidarConfig) -> NDArray[np.bool_]:
    cells = model.occupancy.cells // 2
    _, height, width = model.voxels.shape
    seen = np.zeros((cells, cells), bool)
    seen[voxels.coordinates[:, 1] * cells // height, voxels.coordinates[:, 2] * cells // width] = True
    return seen


# ------------------------------------------------------------------------- starts


def pretrained(start: Start, windows: SweepWindows, config: ProbeConfig, seed: int) -> BevEncoder:
    """The encoder after its pre-training (none for `random`), its BatchNorm calibrated on whole sweeps."""
    torch.manual_seed(seed)
    encoder = BevEncoder(config.model)
    if start != "random":
        objective = make_objective(start, encoder)
        parameters = [*encoder.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
        optimiser = torch.optim.AdamW(parameters, lr=config.pretrain_lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, config.pretrain_lr, total_steps=config.pretrain_steps, pct_start=0.2
        )
        for step, batch in enumerate(_drawn(windows, config.pretrain_batch, config.pretrain_steps, seed)):
            optimiser.zero_grad()
            objective(encoder, *windows.clip(batch, objective))["loss"].backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimiser.step()
            schedule.step()
            objective.follow(encoder, (step + 1) / config.pretrain_steps)
    calibrate(encoder, windows, config, seed)
    return encoder


@torch.no_grad()
def calibrate(encoder: BevEncoder, windows: SweepWindows, config: ProbeConfig, seed: int) -> None:
    """Statistics of BatchNorm over whole sweeps."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches
    encoder.train()
    for batch in _drawn(windows, config.pretrain_batch, config.calibrate, seed + 1):
        encoder(windows.sweeps(batch))
    encoder.eval()


def _drawn(windows: SweepWindows, size: int, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows, seeds = rng.integers(len(windows), size=size), rng.integers(2**31 - 1, size=size)
        yield {"row": torch.from_numpy(rows), "seed": torch.from_numpy(seeds)}


# ------------------------------------------------------------------------- probes


def probe(
    encoder: BevEncoder, data: list[Labelled], share: float, mode: str, config: ProbeConfig, seed: int
) -> tuple[BevEncoder, ProbeHead]:
    """Train the head, and with `finetuned` a copy of the encoder too, on the first episodes of a seeded order."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(sorted({item.episode for item in data}))
    chosen = set(numbers[: max(1, round(share * len(numbers)))].tolist())
    rows = [index for index, item in enumerate(data) if item.episode in chosen]
    torch.manual_seed(seed)
    head = ProbeHead(encoder.bev_channels, config.channels)
    own = BevEncoder(config.model)
    own.load_state_dict(encoder.state_dict())
    groups: list[dict[str, Any]] = [{"params": head.parameters(), "lr": config.probe_lr}]
    if mode == "finetuned":
        groups.append({"params": own.parameters(), "lr": config.probe_lr * config.encoder_lr_factor})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [group["lr"] for group in groups], total_steps=config.probe_steps, pct_start=0.1
    )
    frozen = maps(own, [data[i] for i in rows], config) if mode == "frozen" else None
    for _ in range(config.probe_steps):
        drawn = rng.integers(len(rows), size=config.probe_batch).tolist()
        items = [data[rows[i]] for i in drawn]
        own.train(mode == "finetuned")
        head.train()
        bev = frozen[drawn].float() if frozen is not None else own(_sparse(items, config))
        optimiser.zero_grad()
        _loss(head(bev), items).backward()
        optimiser.step()
        schedule.step()
    return own.eval(), head.eval()


def _sparse(items: list[Labelled], config: ProbeConfig) -> Any:
    return to_sparse([item.voxels for item in items], config.model.voxels)


@torch.no_grad()
def maps(encoder: BevEncoder, items: list[Labelled], config: ProbeConfig) -> Tensor:
    """BEV maps (N, C, rows, columns), half precision, so that a few hundred fit in memory."""
    encoder.eval()
    return torch.cat([encoder(_sparse([item], config)).half() for item in items])


def _loss(logits: Tensor, items: list[Labelled]) -> Tensor:
    """Cross-entropy over scored cells, mean over tasks."""
    truth = torch.from_numpy(np.stack([item.truth for item in items])).float()
    scored = torch.from_numpy(np.stack([item.scored for item in items])).float()
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * scored
    return (each.sum((0, 2, 3)) / scored.sum((0, 2, 3)).clamp_min(1)).mean()


@torch.no_grad()
def score(encoder: BevEncoder, head: ProbeHead, data: list[Labelled], config: ProbeConfig) -> NDArray[np.float64]:
    """(episodes, tasks, 2 · bins) histograms of the log-odds, from which precision and recall follow."""
    numbers = sorted({item.episode for item in data})
    out = np.zeros((len(numbers), len(TASKS), 2 * scoring.BINS))
    for item in data:
        logits = head(encoder(_sparse([item], config)))[0].numpy()
        for task in range(len(TASKS)):
            counts = scoring.histograms(logits[task], item.truth[task], item.scored[task])
            out[numbers.index(item.episode), task] += counts
    return out


def open_windows(sweeps: list[Sweeps], config: LidarConfig) -> SweepWindows:
    """All sweeps of the sources, with augmentation, for pre-training."""
    every = [set(np.unique(s.table["episode"]).tolist()) for s in sweeps]
    return SweepWindows(sweeps, every, config, augment=True)
