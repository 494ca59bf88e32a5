"""The policy of `lerobot_act.py`: LeRobot's ACT at any size.

LeRobot builds it: its configuration, its `ACTPolicy`, its processors. Three things differ from its defaults.

- The task is a one-hot vector in `observation.environment_state`, ACT's own second input (a token of its own, not
  normalised), since ACT has no language.
- The ResNet-18 begins without ImageNet's weights, which need a network to fetch.
- LeRobot takes ResNets by torchvision's names. Another width than 64, or another norm, is a torchvision `ResNet` of the
  same blocks put in its place. With width 64 and the frozen norm nothing is replaced, and the checkpoint is one that
  LeRobot loads by itself; for the others `load` here is needed.

LeRobot's norm is a frozen batch norm, which without ImageNet's statistics is the identity: no normalisation at all.
`norm="group"` puts group norm in its place, as LeRobot's own diffusion policy does where it begins without weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_model
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

STATE, TASK, ACTION, IMAGES = "observation.state", "observation.environment_state", "action", "observation.images."
NOTES = "peer.json"


@dataclass(frozen=True)
class Shape:
    """What goes in and comes out.

    Attributes:
        cameras, state_names, action_names: in order. tasks: words of each. height, width: of every picture, pixels.
        rate_hz: steps of a chunk per second.
    """

    cameras: tuple[str, ...]
    height: int
    width: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    tasks: tuple[str, ...]
    rate_hz: float


@dataclass(frozen=True)
class Sizes:
    """Of the policy; the defaults are LeRobot's, but for the chunk. `backbone_width`: channels of the first layer."""

    chunk: int = 40
    dim_model: int = 512
    feedforward: int = 3200
    heads: int = 8
    encoder_layers: int = 4
    decoder_layers: int = 1
    backbone_width: int = 64
    norm: str = "frozen"
    lr: float = 1e-5


class SizedResNet(ResNet):  # type: ignore[misc]
    """A ResNet-18 of another width."""

    def __init__(self, width: int, norm_layer: Any) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], norm_layer=norm_layer)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm_layer(width)
        for number in range(4):
            layer = self._make_layer(BasicBlock, width * 2**number, 2, stride=1 if number == 0 else 2)
            setattr(self, f"layer{number + 1}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build(shape: Shape, sizes: Sizes) -> ACTPolicy:
    """An untrained policy."""
    picture = PolicyFeature(FeatureType.VISUAL, (3, shape.height, shape.width))
    config = ACTConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (len(shape.state_names),)),
            TASK: PolicyFeature(FeatureType.ENV, (len(shape.tasks),)),
            **{IMAGES + camera: picture for camera in shape.cameras},
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (len(shape.action_names),))},
        device="cpu",
        push_to_hub=False,
        pretrained_backbone_weights=None,
        chunk_size=sizes.chunk,
        n_action_steps=sizes.chunk,
        dim_model=sizes.dim_model,
        dim_feedforward=sizes.feedforward,
        n_heads=sizes.heads,
        n_encoder_layers=sizes.encoder_layers,
        n_decoder_layers=sizes.decoder_layers,
        optimizer_lr=sizes.lr,
        optimizer_lr_backbone=sizes.lr,
    )
    return _with_backbone(ACTPolicy(config), sizes)


def _with_backbone(policy: ACTPolicy, sizes: Sizes) -> ACTPolicy:
    if sizes.backbone_width == 64 and sizes.norm == "frozen":
        return policy
    norm = FrozenBatchNorm2d if sizes.norm == "frozen" else _group_norm
    resnet = SizedResNet(sizes.backbone_width, norm)
    policy.model.backbone = IntermediateLayerGetter(resnet, return_layers={"layer4": "feature_map"})
    policy.model.encoder_img_feat_input_proj = nn.Conv2d(8 * sizes.backbone_width, sizes.dim_model, kernel_size=1)
    return policy


def _group_norm(channels: int) -> nn.GroupNorm:
    """About sixteen channels in a group, as in LeRobot's diffusion policy."""
    groups = next(groups for groups in range(max(1, channels // 16), 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def count(policy: ACTPolicy) -> tuple[int, int]:
    """Parameters of all, and of what runs: the encoder of the variational objective is for training only."""
    parameters = dict(policy.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    training_only = sum(p.numel() for name, p in parameters.items() if ".vae_encoder" in name)
    return total, total - training_only


def sized(shape: Shape, parameters: int, sizes: Sizes) -> Sizes:
    """LeRobot's ACT shrunk in proportion until what runs has `parameters`.

    Width of the model and of the backbone keep their ratio, 8 : 1, layers and heads their number; the width of the
    feed-forward layers, about 6.25 that of the model, takes up what is left.

    Raises:
        ValueError: there is no such size; the message says which is nearest.
    """

    def having(dim: int, feedforward: int) -> tuple[Sizes, int]:
        found = Sizes(**asdict(sizes) | {"dim_model": dim, "backbone_width": dim // 8, "feedforward": feedforward})
        return found, count(build(shape, found))[1]

    dim = max(16, 16 * round(512 * math.sqrt(parameters / 34.5e6) / 16))
    (_, less), (_, more) = having(dim, 100), having(dim, 101)
    feedforward = 100 + round((parameters - less) / (more - less))
    if not dim <= feedforward <= 16 * dim:
        raise ValueError(f"no ACT in proportion has {parameters} parameters; the nearest has {less} and more")
    return having(dim, feedforward)[0]


# ------------------------------------------------------------------ on disk


def save(folder: Path, policy: ACTPolicy, processors: tuple[Any, Any], notes: dict[str, Any]) -> None:
    """LeRobot's checkpoint, its processors, and what they do not say: `Shape`, `Sizes` and `notes`, in peer.json."""
    for part in (policy, *processors):
        part.save_pretrained(folder)
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n")


def load(folder: Path) -> tuple[ACTPolicy, tuple[Any, Any], Shape, Sizes]:
    """What `save` wrote. Raises OSError or ValueError where it is none."""
    notes = json.loads((folder / NOTES).read_text())
    shape = Shape(**{k: tuple(v) if isinstance(v, list) else v for k, v in notes["shape"].items()})
    sizes = Sizes(**notes["sizes"])
    policy = _with_backbone(ACTPolicy(PreTrainedConfig.from_pretrained(folder)), sizes)
    load_model(policy, str(folder / "model.safetensors"), strict=True)
    return policy.eval(), make_pre_post_processors(policy.config, pretrained_path=str(folder)), shape, sizes


def untrained(shape: Shape, sizes: Sizes) -> tuple[ACTPolicy, tuple[Any, Any]]:
    """A policy for timing, with statistics that change nothing."""
    torch.manual_seed(0)
    policy = build(shape, sizes)
    flat = partial(torch.full, (1,))
    stats = {key: {"mean": flat(0.0), "std": flat(1.0)} for key in (STATE, ACTION)}
    grey = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)}
    stats |= {IMAGES + camera: grey for camera in shape.cameras}
    return policy.eval(), make_pre_post_processors(policy.config, dataset_stats=stats)
