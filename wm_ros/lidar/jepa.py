"""The label-free objective of AD-L-JEPA (arXiv 2501.04969): predict the embedding of hidden cells from visible ones.

Half of the non-empty BEV cells, and half of the empty ones, are hidden. The context encoder gets only the voxels of
visible cells, the target encoder only those of hidden cells. The predictor sees the context map with learnable tokens
where a cell is hidden or empty, and its output at hidden cells is held against the target map (cosine). A hinge on the
spread of each channel and an EMA target keep the maps from collapsing.

Where the released code and the paper differ, or a re-implementer stumbles:

- The released pre-training pastes labelled objects into the sweeps. Here nothing is pasted and no label is read.
- The paper's figure stops the gradient at the target, the code does not. The encoder of the target has none either way,
  but the empty token is in both maps and gets gradient from both sides of the cosine, as in the code.
- The code permutes cells over the whole batch, so the ratio holds per batch. So it does here.
- z is dropped for the masks; the code's floor division by 2·max(z) fails where all voxels lie in the lowest bin.
- γ of the hinge is 1/16 = 1/√256 there; unit vectors of C channels spread by at most 1/√C each, so it is 1/√C here.
- Encoder and predictor end in ReLU, so cosines of non-empty targets lie in 0..1.
- With dilating strides features spill into neighbouring cells; the tokens overwrite them at hidden and empty cells.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_ros.lidar.encoder import BevEncoder
from wm_ros.lidar.representation import effective_rank
from wm_ros.lidar.sparse import Sparse

OCCUPIED_WEIGHT, EMPTY_WEIGHT = 0.75, 0.25
EMA_START = 0.996


@dataclass(frozen=True)
class Masks:
    """Which BEV cells are what; all (B, rows, columns) bool.

    Attributes:
        occupied: a voxel lies above it. hidden: target; the others are context.
        voxel_hidden: (N,) bool, the same for each voxel by its cell.
    """

    occupied: Tensor
    hidden: Tensor
    voxel_hidden: Tensor


def draw_masks(x: Sparse, stride: tuple[int, int], bev_shape: tuple[int, int], ratio: float) -> Masks:
    """Hide exactly a share `ratio` of the batch's non-empty cells, and each empty cell with that probability."""
    rows, columns = bev_shape
    b = x.sites[:, 0]
    row = torch.div(x.sites[:, 2], stride[0], rounding_mode="floor").clamp_max(rows - 1)
    column = torch.div(x.sites[:, 3], stride[1], rounding_mode="floor").clamp_max(columns - 1)
    cell = (b * rows + row) * columns + column
    occupied = torch.zeros(x.batch * rows * columns, dtype=torch.bool, device=cell.device)
    occupied[cell] = True
    hidden = torch.rand(len(occupied), device=cell.device) < ratio
    filled = occupied.nonzero()[:, 0]
    order = torch.randperm(len(filled), device=cell.device)
    kept = round(len(filled) * (1 - ratio))
    hidden[filled[order[:kept]]] = False
    hidden[filled[order[kept:]]] = True
    shape = (x.batch, rows, columns)
    return Masks(occupied.view(shape), hidden.view(shape), hidden[cell])


def keep_voxels(x: Sparse, keep: Tensor) -> Sparse:
    """Only some of the voxels; rulebooks are built anew for them."""
    return Sparse(x.features[keep], x.sites[keep], x.shape, x.batch)


def spread_penalty(features: Tensor, cells: Tensor) -> Tensor:
    """Hinge on the standard deviation of each channel over `cells`, per sample, then averaged (VICReg).

    Args:
        features: (B, C, rows, columns). cells: (B, rows, columns) bool.
    """
    gamma = features.shape[1] ** -0.5
    penalties = []
    for sample, chosen in zip(features, cells, strict=True):
        values = sample[:, chosen]
        if values.shape[1] > 1:
            penalties.append(torch.relu(gamma - (values.var(1) + 1e-4).sqrt()).mean())
    return torch.stack(penalties).mean() if penalties else features.sum() * 0.0


class Predictor(nn.Sequential):
    """Three 3 × 3 convolutions with BatchNorm and ReLU, the last one too."""

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers)


class Jepa(nn.Module):
    """Predictor, tokens and target encoder; the context encoder is given, so that it can be exported alone.

    Args:
        ratio: share of cells that are hidden. alpha, beta: weights of prediction and spread (paper: 1 and 1 on KITTI,
            1 and 10 on Waymo).
    """

    past: tuple[int, ...] = ()
    compensated = False

    def __init__(self, encoder: BevEncoder, ratio: float = 0.5, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        channels = encoder.bev_channels
        self.ratio, self.alpha, self.beta = ratio, alpha, beta
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = Predictor(channels)
        self.mask_token = nn.Parameter(torch.randn(channels))
        self.empty_token = nn.Parameter(torch.randn(channels))

    def maps(self, encoder: BevEncoder, x: Sparse, masks: Masks) -> tuple[Tensor, Tensor, Tensor]:
        """Context, prediction and target maps, (B, C, rows, columns), unit vectors over C."""
        context = encoder(keep_voxels(x, ~masks.voxel_hidden))
        with torch.no_grad():
            target = self.target(keep_voxels(x, masks.voxel_hidden))
        context = put(put(context, masks.hidden, self.mask_token), ~masks.hidden & ~masks.occupied, self.empty_token)
        target = put(target, masks.hidden & ~masks.occupied, self.empty_token)
        context = F.normalize(context, dim=1)
        prediction = F.normalize(self.predictor(context), dim=1)
        return context, prediction, F.normalize(target, dim=1)

    def forward(self, encoder: BevEncoder, x: Sparse) -> dict[str, Tensor]:
        """Losses and collapse monitors of a batch of sweeps; `loss` is minimised."""
        masks = draw_masks(x, encoder.stride, encoder.bev_shape, self.ratio)
        context, prediction, target = self.maps(encoder, x, masks)
        hidden_occupied, hidden_empty = masks.hidden & masks.occupied, masks.hidden & ~masks.occupied
        cosine = (prediction * target).sum(1)
        at_occupied, at_empty = cosine[hidden_occupied].mean(), cosine[hidden_empty].mean()
        distance = OCCUPIED_WEIGHT * (1 - at_occupied) + EMPTY_WEIGHT * (1 - at_empty)
        spread = spread_penalty(context, ~masks.hidden & masks.occupied) + spread_penalty(prediction, hidden_occupied)
        found = {
            "loss": self.alpha * distance + self.beta * spread,
            "jepa_distance": distance,
            "jepa_spread": spread,
            "masked_cosine_occupied": at_occupied,
            "masked_cosine_empty": at_empty,
        }
        with torch.no_grad():
            seen = target.permute(0, 2, 3, 1)[hidden_occupied]
            found |= {"target_std": seen.std(0).mean(), "target_rank": effective_rank(seen)}
            # Which hidden cells are occupied, read off the prediction without labels.
            said = (prediction * F.normalize(self.empty_token, dim=0)[:, None, None]).sum(1) < 0.5
            both = (said & hidden_occupied).sum()
            found["occupied_iou_label_free"] = both / ((said & masks.hidden) | hidden_occupied).sum().clamp_min(1)
        return found

    def follow(self, encoder: BevEncoder, progress: float) -> None:
        """After an optimiser step; `progress` 0..1 through the training."""
        follow(self.target, encoder, progress)


@torch.no_grad()
def follow(target: nn.Module, encoder: nn.Module, progress: float) -> None:
    """EMA of the parameters, momentum 0.996 → 1 with `progress` 0..1; BatchNorm keeps its own statistics."""
    momentum = EMA_START + (1.0 - EMA_START) * min(max(progress, 0.0), 1.0)
    for mine, theirs in zip(target.parameters(), encoder.parameters(), strict=True):
        mine.lerp_(theirs, 1.0 - momentum)


def put(features: Tensor, cells: Tensor, token: Tensor) -> Tensor:
    """`token` at `cells`, features elsewhere."""
    return torch.where(cells[:, None], token[None, :, None, None], features)
