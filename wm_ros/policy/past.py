"""What the past alone says of a chunk: the mean of a few three-layer MLPs, from where the joints are asked to be.

Attention over the same history knows a few dozen demonstrations by heart before it is of use; small networks fitted
first, by as many steps as held-out episodes gain from, are nearer to what will be commanded (`wm_ros.training.
policy_past`). They start from holding still; on top of a linear fit, which has seen the same episodes, they learned
less. Commands say more than anything else where they are known: measured joints lag behind them.
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
        mlps = (config.width, config.dropout, config.members)
        heard = config.kinds if config.commands else 0
        self.kinds = Kinds(joints, config.kinds)
        self.deaf = nn.ModuleList(PastPath(*sizes, 0, *mlps) for _ in range(config.kinds))
        self.hearing = nn.ModuleList(PastPath(*sizes, config.commands, *mlps) for _ in range(heard))
        self.register_buffer("heed", torch.ones(config.kinds, 2))

    def forward(self, seen: Observation) -> tuple[Tensor, Tensor]:
        """→ how far each joint will be commanded from where it is, (B, F, J) rad; (B, 1, 1) heed of the rest."""
        heed = self.heed[self.kind(seen.joints), self._heard(seen).long()]
        return self.routed(seen, lambda path, inputs, _: path.said(inputs)), heed[:, None, None]

    def routed(self, seen: Observation, say: Callable[[PastPath, Tensor, str], Tensor]) -> Tensor:
        """What `say` makes of the path that each item is for, its inputs and its name (`place`): (B, F, J) rad."""
        kind, heard = self.kind(seen.joints), self._heard(seen)
        parts: list[Tensor] = []
        places: list[Tensor] = []
        for hears, paths in ((False, self.deaf), (True, self.hearing)):
            for number, path in enumerate(paths):
                assert isinstance(path, PastPath)
                rows = ((kind == number) & (heard == hears)).nonzero()[:, 0]
                if len(rows):
                    told = (seen.commands, seen.commands_pad) if hears else ()
                    given = [part[rows] for part in (seen.joints, seen.joints_pad, *told) if part is not None]
                    parts.append(say(path, path.inputs(*given), place(number, hears)))
                    places.append(rows)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def kind(self, joints: Tensor) -> Tensor:
        """(B,) which kind of recording joints (B, H, J) look like, by where they are now."""
        found: Tensor = self.kinds(joints[:, -1]).argmax(1)
        return found

    def _heard(self, seen: Observation) -> Tensor:
        return seen.heard & (len(self.hearing) > 0)


def place(kind: int, hears: bool) -> str:
    """The name under which figures and baselines of a path are kept."""
    return f"{kind}_commands" if hears else f"{kind}"


class PastPath(nn.Module):
    """History of measured joints, and of commands, → how far each joint will be commanded from where it is now.

    Until it is fitted it stays at the last command, or where it is; not trained by others. All in rad; constants and
    weights are saved together.

    Args:
        joints: J, how many. history: H, steps of measured joints, the last one now. steps: F, of the chunk.
        commands: K, steps of commands heard, the last one in force now; 0 = hears none.
        width, dropout: of each MLP. members: how many; fitted from different starts, they err less together than one.

    Attributes:
        mean, std: (inputs,) of the inputs of the MLPs.
        left_open: (F, J) rad, mean error of staying, the unit of what the MLPs add.
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
        width: int = 128,
        dropout: float = 0.3,
        members: int = 5,
    ) -> None:
        super().__init__()
        inputs = joints * (history + commands)
        self.size, self.commands = (steps, joints), commands
        self.networks = nn.ModuleList(three_layers(inputs, width, steps * joints, dropout) for _ in range(members))
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

    def said(self, inputs: Tensor) -> Tensor:
        """`forward` of `inputs`: (B, F, J) rad."""
        added = [self.member(number, inputs) for number in range(len(self.networks))]
        return self.staying(inputs) + torch.stack(added).mean(0)

    def staying(self, inputs: Tensor) -> Tensor:
        """How far from where the joints are the last command is, 0 where none is heard: (B, 1, J) rad."""
        last = inputs[:, -self.size[1] :]
        return last[:, None] if self.commands else torch.zeros_like(last)[:, None]

    def member(self, number: int, inputs: Tensor) -> Tensor:
        """What one of the MLPs adds: (B, F, J) rad."""
        added: Tensor = self.networks[number]((inputs - self.mean) / self.std)
        return added.unflatten(1, self.size) * self.left_open
