"""What the past alone says of a chunk: a linear path and, on top of it, the mean of a few three-layer MLPs.

Attention over the same history knows a few dozen demonstrations by heart before it is of use; a small network fitted
first, by as many steps as held-out episodes gain from, is nearer to what will be commanded (`wm_ros.training.
policy_past`). Lately sent commands say more than anything else where they are known: measured joints lag behind them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wm_ros.nn.mlp import three_layers
from wm_ros.policy.config import PastConfig, PolicyModelConfig
from wm_ros.policy.context import Observation
from wm_ros.state.kinds import Kinds


class Pasts(nn.Module):
    """Two paths for each kind of recording: one that hears commands, followed where they are known, and one without.

    Attributes:
        kinds: tells kinds apart by where the joints are.
        deaf, hearing: a `PastPath` for each kind; `hearing` is empty where commands are not heard.
        heed: (kinds, 2) how far what is added to a path is heeded, without and with commands, 0..1.
    """

    heed: Tensor

    def __init__(self, model: PolicyModelConfig, config: PastConfig) -> None:
        super().__init__()
        joints = len(model.joint_names)
        sizes = (joints, model.joint_history, model.chunk_steps)
        heard = config.kinds if config.commands else 0
        mlps = (config.width, config.dropout, config.members)
        self.kinds = Kinds(joints, config.kinds)
        self.deaf = nn.ModuleList(PastPath(*sizes, 0, *mlps) for _ in range(config.kinds))
        self.hearing = nn.ModuleList(PastPath(*sizes, config.commands, members=0) for _ in range(heard))
        self.register_buffer("heed", torch.ones(config.kinds, 2))

    def forward(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """→ how far each joint will be commanded from where it is, (B, F, J) rad; (B, 1, 1) heed of the rest."""
        heed = self.heed[self.kind(seen.joints), seen.heard.long()]
        return self.routed(seen, PastPath.said), heed[:, None, None]

    def routed(self, seen: Observation, say: Callable[[PastPath, Tensor], Tensor]) -> Tensor:
        """What the path that each item is for says of its inputs: (B, F, J) rad."""
        kind, heard = self.kind(seen.joints), seen.heard
        parts: list[Tensor] = []
        places: list[Tensor] = []
        for hears, paths in ((False, self.deaf), (True, self.hearing)):
            for number, path in enumerate(paths):
                assert isinstance(path, PastPath)
                place = ((kind == number) & (heard == hears)).nonzero()[:, 0]
                if len(place):
                    told = (seen.commands, seen.commands_pad) if hears else ()
                    given = [part[place] for part in (seen.joints, seen.joints_pad, *told) if part is not None]
                    parts.append(say(path, path.inputs(*given)))
                    places.append(place)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def kind(self, joints: Tensor) -> Tensor:
        """(B,) which kind of recording joints (B, H, J) look like, by where they are now."""
        found: Tensor = self.kinds(joints[:, -1]).argmax(1)
        return found


class PastPath(nn.Module):
    """History of measured joints, and of commands, → how far each joint will be commanded from where it is now.

    Zero until it is fitted, and not trained by others. All in rad; constants and weights are saved together.

    Args:
        joints: J, how many. history: H, steps of measured joints, the last one now. steps: F, of the chunk.
        commands: K, steps of commands heard, the last one in force now; 0 = hears none.
        width, dropout: of each MLP. members: how many; fitted from different starts, they err less together than one.

    Attributes:
        mean, std: (inputs,) of the inputs of the MLPs.
        left_open: (F, J) rad, mean error of the linear path, the unit of what the MLPs add.
    """

    mean: Tensor
    std: Tensor
    left_open: Tensor

    def __init__(
        self,
        joints: int,
        history: int,
        steps: int,
        commands: int = 0,
        width: int = 256,
        dropout: float = 0.3,
        members: int = 6,
    ) -> None:
        super().__init__()
        inputs = joints * (history + commands)
        self.size, self.commands = (steps, joints), commands
        self.linear = nn.Linear(inputs, steps * joints)
        self.networks = nn.ModuleList(three_layers(inputs, width, steps * joints, dropout) for _ in range(members))
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.register_buffer("left_open", torch.ones(steps, joints))
        self.requires_grad_(False)

    def forward(
        self, joints: Tensor, joints_pad: Tensor, commands: Tensor | None = None, commands_pad: Tensor | None = None
    ) -> Tensor:
        """→ (B, F, J) rad, to be added to the joints measured now.

        Args:
            joints: (B, H, J) rad, oldest first. joints_pad: (B, H) bool, True where nothing was measured yet.
            commands: (B, K, J) rad. commands_pad: (B, K) bool, True where nothing was commanded yet.
        """
        return self.said(self.inputs(joints, joints_pad, commands, commands_pad))

    def said(self, inputs: Tensor) -> Tensor:
        """The same, of `inputs`."""
        return self.straight(inputs) + self.bend(inputs)

    def inputs(
        self, joints: Tensor, joints_pad: Tensor, commands: Tensor | None = None, commands_pad: Tensor | None = None
    ) -> Tensor:
        """(B, inputs) rad: joints now, and how far from there joints and commands were; what is padded was there.

        Raises:
            ValueError: commands are not given, and the path was made to hear them.
        """
        now = joints[:, -1:]
        moved = (joints[:, :-1] - now).masked_fill(joints_pad[:, :-1, None], 0.0)
        parts = [now, moved]
        if self.commands:
            if commands is None or commands_pad is None:
                raise ValueError("this path hears commands: give them and where they are padded")
            parts.append((commands - now).nan_to_num().masked_fill(commands_pad[..., None], 0.0))
        return torch.cat(parts, 1).flatten(1)

    def straight(self, inputs: Tensor) -> Tensor:
        """What the linear path says of `inputs`: (B, F, J) rad."""
        path: Tensor = self.linear(inputs)
        return path.unflatten(1, self.size)

    def bend(self, inputs: Tensor) -> Tensor:
        """What the MLPs add to it: (B, F, J) rad."""
        if not len(self.networks):
            return self.left_open.new_zeros(len(inputs), *self.size)
        return torch.stack([self.member(number, inputs) for number in range(len(self.networks))]).mean(0)

    def member(self, number: int, inputs: Tensor) -> Tensor:
        """What one of them adds: (B, F, J) rad."""
        added: Tensor = self.networks[number]((inputs - self.mean) / self.std)
        return added.unflatten(1, self.size) * self.left_open
