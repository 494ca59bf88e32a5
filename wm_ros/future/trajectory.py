"""Stage I, consecutive state modelling: from two states, the instruction and the past, how hands and joints go on.

The paper (section 3, "CoSMo") predicts from the previous and the current state, a text prompt and past actions, each
embedded (actions by a three-layer MLP) and read by one sequence model. Here three parts add up, so that an untrained
network is already a fair predictor: a linear path (`Ridge`); what the past says beyond it (`PastPath`, the
three-layer MLP), both fitted first; and what states, instruction and image say, read by a small transformer or another
sequence model (`wm_ros.future.reading`). That is heeded as far as held-out episodes of the same kind gained by it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_ros.future.baselines import LinearPath
from wm_ros.future.config import FutureConfig
from wm_ros.future.history import Batch
from wm_ros.future.look import Look
from wm_ros.future.past import STATE_SHARE, PastPath
from wm_ros.future.reading import QUERIES, make_reader
from wm_ros.future.samples import Fan, Samples
from wm_ros.nn.instruction import make_encoder
from wm_ros.state.kinds import Kinds

KNOWN_JOINTS, KNOWN_LEFT, KNOWN_RIGHT, KNOWN_PREVIOUS, KNOWN_ASKED, KNOWN_IMAGE = range(6)


class Normaliser(nn.Module):
    """Constants fitted on the training set, and what tells the kinds of recordings apart by their states.

    body: mean and spread of (left wrist, right wrist, joints), (V,). state: of tokens, (T, D). asked: (J,) of commanded
    minus measured joints. step: (F, V) spread of what the linear path leaves open at each future step, of all kinds.
    left_open: (K, F, V) the same of each kind.
    """

    body_mean: Tensor
    body_std: Tensor
    asked_std: Tensor
    state_mean: Tensor
    state_std: Tensor
    step_std: Tensor
    left_open: Tensor
    latent_mean: Tensor
    latent_std: Tensor
    change_std: Tensor

    def __init__(self, config: FutureConfig, latent_channels: int) -> None:
        super().__init__()
        state = (config.state_tokens, config.state_width)
        constants = {
            "body_mean": torch.zeros(config.values),
            "body_std": torch.ones(config.values),
            "asked_std": torch.ones(len(config.joint_names)),
            "state_mean": torch.zeros(state),
            "state_std": torch.ones(state),
            "step_std": torch.ones(config.horizon_steps, config.values),
            "left_open": torch.ones(config.kinds, config.horizon_steps, config.values),
            "latent_mean": torch.zeros(latent_channels),
            "latent_std": torch.ones(latent_channels),
            "change_std": torch.ones(len(config.frame_steps), latent_channels),
        }
        for name, value in constants.items():
            self.register_buffer(name, value)
        self.kinds = Kinds(config.state_tokens * config.state_width, config.kinds)

    def kind(self, states: Tensor) -> Tensor:
        """Index (B,) of the kind of recording that states (B, 2, T, D) are of, by the current one."""
        found: Tensor = self.kinds(states[:, 1].flatten(1)).argmax(1)
        return found


class Past(NamedTuple):
    """What stage I sees, in its units.

    Attributes:
        body: (B, H, V) m and rad, the unknown parts at the training mean.
        absolute: (B, H, V) the same in spreads of the training bodies. relative: (B, H, V) where it was relative to
            now, in spreads of the linear path's error at 0.5 s. asked: (B, H, J). states: (B, 2, T, D).
    """

    body: Tensor
    absolute: Tensor
    relative: Tensor
    asked: Tensor
    states: Tensor


class Forecast(NamedTuple):
    """What stage I says.

    Attributes:
        body: (B, F, V) central estimate of both wrists (m) and the joints (rad).
        scale: (B, F, V) spread of what the linear path leaves open in recordings of this kind.
        context: (B, W) what the samples around the estimate are drawn from. kind: (B,) of recording.
        attention: (B, rows, columns) where in the image the named object was looked for; None for a model that does
            not look, or where no image is there.
        subtask: (B, P) log-probability of each phrase of `subtasks`; None for a model without.
    """

    body: Tensor
    scale: Tensor
    context: Tensor
    kind: Tensor
    attention: Tensor | None = None
    subtask: Tensor | None = None

    def of(self, rows: Tensor) -> Forecast:
        """Those of some examples."""
        return Forecast(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def left_open(self, hands: Tensor) -> Tensor:
        """Paths of both wrists (B, …, F, 6) as differences from the central estimate, in units of `scale`."""
        between = hands.dim() - 3
        centre, scale = (part[..., :6].unflatten(0, (-1, *[1] * between)) for part in (self.body, self.scale))
        return (hands - centre) / scale


class TrajectoryModel(nn.Module):
    """Batch → Forecast.

    Buffers:
        heed: (K,) how far the reading is heeded in each kind of recording, 0..1.
    """

    heed: Tensor

    def __init__(self, config: FutureConfig, norm: Normaliser) -> None:
        super().__init__()
        self.config, sizes = config, config.trajectory
        width, values = sizes.width, config.values
        joints = len(config.joint_names)
        self.base = LinearPath(config.kinds, values, sizes.ridge_states, config.horizon_steps)
        self.base_asked = LinearPath(config.kinds, values, sizes.ridge_states, config.horizon_steps, joints)
        self.register_buffer("heed", torch.ones(config.kinds))
        self.body_in = nn.Sequential(
            nn.Linear(2 * values, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.asked_in = nn.Linear(joints, width)
        self.state_in = nn.Linear(config.state_width, width)
        self.text_in = make_encoder(config.language, width, drop=0.1)
        self.look = None
        if sizes.image == "patches":
            size = (config.image_height, config.image_width)
            self.look = Look(width, sizes.look_width, sizes.look_queries, size)
            self.ask = nn.Linear(width, QUERIES * width)
        # Places: previous state, current state, motion between them, instruction, history.
        self.place = nn.Parameter(torch.randn(3 * config.state_tokens + 1 + config.history_steps, width) * 0.02)
        self.query = nn.Parameter(torch.randn(QUERIES, width) * 0.02)
        self.missing = nn.Parameter(torch.randn(5, width) * 0.02)
        self.blocks = make_reader(sizes, config.history_steps)
        self.body_out = nn.Linear(QUERIES * width, config.horizon_steps * values)
        self.subtask_out = nn.Linear(QUERIES * width, len(config.subtasks)) if config.subtasks else None
        nn.init.zeros_(self.body_out.weight)
        nn.init.zeros_(self.body_out.bias)
        self.samples = Samples(config.samples, QUERIES * width, config.kinds, config.horizon_steps)
        future = (config.horizon_steps, values)
        inputs = config.history_steps * values + config.state_tokens * config.state_width
        more = config.history_steps * joints
        self.past = PastPath(config.kinds, inputs, sizes.past_width, future, sizes.past_dropout)
        self.past_asked = PastPath(config.kinds, inputs + more, sizes.past_width, future, sizes.past_dropout)
        object.__setattr__(self, "norm", norm)  # shared with stage II, saved once

    norm: Normaliser

    def forward(self, batch: Batch) -> Forecast:
        past, kind = self.take(batch), self.norm.kind(batch.states)
        scale = self.norm.left_open[kind]
        # A linear path, and what the past says beyond it.
        path = torch.where(
            hears_commands(batch)[:, None, None], self.from_past(past, kind, True), self.from_past(past, kind, False)
        )
        # What states, instruction and image say.
        tokens, attention = self.embed(batch, past)
        context = self.blocks(tokens)[:, -QUERIES:].flatten(1)
        reading = self.body_out(context).view(len(tokens), self.config.horizon_steps, -1)
        path = path + scale * self.heed[kind][:, None, None] * reading
        subtask = None if self.subtask_out is None else self.subtask_out(context).log_softmax(-1)
        # The samples are drawn around the central estimate, which does not learn from them.
        return Forecast(path, scale, context.detach(), kind, attention, subtask)

    def from_past(self, past: Past, kind: Tensor, commanded: bool) -> Tensor:
        """Future (B, F, V) by the past and the current state, without or with what the joints were commanded."""
        scale = self.norm.left_open[kind]
        seen = torch.cat([past.absolute[:, -1], past.relative[:, :-1].flatten(1)], 1)
        seen = torch.cat([seen, STATE_SHARE * past.states[:, 1].flatten(1)], 1)
        if not commanded:
            return self.base(past.body, kind) + scale * self.past(seen, kind)
        asked = past.asked * self.norm.asked_std
        seen = torch.cat([seen, past.asked.flatten(1)], 1)
        return self.base_asked(torch.cat([past.body, asked], -1), kind) + scale * self.past_asked(seen, kind)

    def imagine(self, forecast: Forecast, count: int | None = None, steps: int | None = None) -> Fan:
        """Samples of both wrists around a forecast, weighed by their energy.

        Args:
            count, steps: how many, and denoising steps at most; those of the config where None.
        """
        sizes, samples = self.config.samples, self.samples
        open_, energy, taken = samples.draw(forecast.context, forecast.kind, count or sizes.count, steps or sizes.steps)
        hands = forecast.body[:, None, :, :6] + open_ * forecast.scale[:, None, :, :6]
        probability = (-samples.trust[forecast.kind][:, None] * energy).softmax(1)
        return Fan(hands, energy, probability, taken)

    def plausibility(self, forecast: Forecast, hands: Tensor) -> Tensor:
        """Energies (B, S) of candidate paths of both wrists (B, S, F, 6), m; lower is more plausible."""
        return self.samples.judge(forecast.context, self.samples.coefficients(forecast.left_open(hands)))

    def take(self, batch: Batch) -> Past:
        """The past in the units of the networks."""
        norm, known = self.norm, batch.known
        mask = torch.cat(
            [
                known[:, KNOWN_LEFT, None].expand(-1, 3),
                known[:, KNOWN_RIGHT, None].expand(-1, 3),
                known[:, KNOWN_JOINTS, None].expand(-1, len(self.config.joint_names)),
            ],
            1,
        )[:, None]
        body = torch.where(mask, batch.body, norm.body_mean)
        return Past(
            body,
            (body - norm.body_mean) / norm.body_std,
            (body - body[:, -1:]) / norm.step_std[len(norm.step_std) // 4],
            batch.asked / norm.asked_std,
            (batch.states - norm.state_mean) / norm.state_std,
        )

    def embed(self, batch: Batch, past: Past) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, S, width), queries last, and where the named object was looked for, if it was."""
        known = batch.known
        history = self.body_in(torch.cat([past.absolute, past.relative], -1))
        for index in (KNOWN_JOINTS, KNOWN_LEFT, KNOWN_RIGHT):
            history = history + self.missing[index] * ~known[:, index, None, None]
        asked = self.asked_in(past.asked)
        history = history + torch.where(hears_commands(batch)[:, None, None], asked, self.missing[KNOWN_ASKED])
        # States: previous, current, and the motion between them.
        previous, current = past.states[:, 0], past.states[:, 1]
        has_previous = known[:, KNOWN_PREVIOUS, None, None]
        gone = self.missing[KNOWN_PREVIOUS]
        text = self.text_in(batch.words)
        tokens = [
            torch.where(has_previous, self.state_in(previous), gone),
            self.state_in(current),
            torch.where(has_previous, self.state_in(current - previous), gone),
            text[:, None],
            history,
        ]
        placed = torch.cat(tokens, 1) + self.place
        found, attention = self._look_up(batch, text)
        query = self.query.expand(len(placed), -1, -1)
        for named in found:  # the queries begin with where the named object is: attention alone is slow to carry it
            query = query + self.ask(named[:, 0]).unflatten(1, query.shape[1:])
        return torch.cat([*found, placed, query], 1), attention

    def _look_up(self, batch: Batch, text: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """What the instruction names, in the image: tokens (B, Q, width), none for a model that does not look."""
        if self.look is None:
            return [], None
        missing = self.look.missing.expand(len(text), -1, -1)
        if batch.image is None:
            return [missing], None
        looked = self.look(batch.image, text)
        return [torch.where(batch.known[:, KNOWN_IMAGE, None, None], looked.tokens, missing)], looked.attention


def hears_commands(batch: Batch) -> Tensor:
    """(B,) whether commands are known; they are differences from measured joints, so those must be known too."""
    return batch.known[:, KNOWN_ASKED] & batch.known[:, KNOWN_JOINTS]
