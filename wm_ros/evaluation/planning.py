"""Does the energy of `future` tell the chunk that was commanded from others? What planning by imagination rests on.

At moments of recordings the commanded joints of the next second are hidden among wrong chunks, and `future` judges all
as it does for the policy, from what was seen until then. Wrong ones are

    spread_<x>  smooth changes of the true chunk, x rad at its end, as are made of the chunk of a regression head
    elsewhere   true chunks of other moments of other episodes, moved to where the joints are

`first_…` is the share of moments at which the true one has the lowest energy (chance: one in K), `beaten_…` the share
of wrong ones that are less plausible than it (chance: a half). Baselines that need no energy: `forecast` takes the
chunk whose wrists stay nearest to the central forecast, `least_motion` the one whose wrists go least far. `_moving`
counts moments at which a wrist goes further than 3 cm in the true chunk: at rest everything but rest is easily told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.errors import UserError
from wm_ros.evaluation.metrics import summarise, tidy, wilson
from wm_ros.evaluation.replay import Pipeline
from wm_ros.evaluation.scorer import Metric
from wm_ros.future.capability import FutureCapability
from wm_ros.future.history import resample
from wm_ros.future.painter import Moment
from wm_ros.kinematics import SIDES, arm_for
from wm_ros.policy.imagination import Imagination, ImaginationConfig
from wm_ros.types import Frame, JointCommand, Joints, MotionQuery

CHUNK_S = 1.0
HISTORY_S = 0.8  # before the first moment, so that a window is full
MOVING_M = 0.03
SPREADS_RAD = (0.05, 0.1, 0.2)
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A moment with what was commanded after it: chunk (F, J) at `offsets_s` (F,), rad; now: (J,) as measured."""

    moment: Moment
    names: tuple[str, ...]
    offsets_s: Double
    chunk: Double
    now: Double

    def wrists(self, chunks: NDArray[Any]) -> Double:
        """Paths (K, F, S, 3) of the wrists, m, on chunks (K, F, J); of S sides as `sides` has them."""
        arms = [arm for side in self.sides if (arm := arm_for(self.names, side)) is not None]
        columns = [[self.names.index(name) for name in arm.joint_names] for arm in arms]
        return np.stack([arm.wrist(chunks[..., own]) for arm, own in zip(arms, columns, strict=True)], -2)

    @property
    def sides(self) -> list[str]:
        """Whose arm is among the joints."""
        return [side for side in SIDES if arm_for(self.names, side) is not None]

    def moving(self) -> bool:
        """Whether a wrist goes further than `MOVING_M`."""
        return bool((np.linalg.norm(np.ptp(self.wrists(self.chunk[None])[0], axis=0), axis=-1) > MOVING_M).any())


def cases(episode: Episode, pipeline: Pipeline, every_s: float) -> list[Case]:
    """The moments of an episode, `every_s` apart to the next step; only images that they need are looked at."""
    pipeline.reset()
    future = pipeline.capability("future")
    assert isinstance(future, FutureCapability)
    config = future.config
    gap_ns, near_ns = round(config.state_gap_steps * 1e9 / config.rate_hz), round(0.5e9 / config.rate_hz)
    commands: list[JointCommand] = []
    found: list[tuple[Moment, Joints]] = []
    joints: Joints | None = None
    due_ns: int | None = None
    for sample in episode.samples():
        if due_ns is None:
            due_ns = sample.stamp_ns + round(HISTORY_S * 1e9)
        if isinstance(sample, JointCommand):
            commands.append(sample)
            continue
        if isinstance(sample, Joints):
            joints = sample
        if isinstance(sample, Frame) and min(abs(sample.stamp_ns - due_ns + back) for back in (0, gap_ns)) > near_ns:
            continue
        for _ in pipeline.step(sample):
            pass
        moment = future.moment
        if joints is not None and moment is not None and moment.stamp_ns >= due_ns - near_ns:
            found.append((moment, joints))
            due_ns = moment.stamp_ns + round(max(1, round(every_s * config.rate_hz)) * 1e9 / config.rate_hz)
            future.moment = None
    if not commands:
        return []
    times = np.array([command.stamp_ns for command in commands])
    told = np.stack([command.position_rad for command in commands]).astype(np.float64)
    offsets_s = np.arange(1, round(CHUNK_S * config.rate_hz) + 1) / config.rate_hz
    kept = []
    for moment, at in found:
        due = moment.stamp_ns + np.round(offsets_s * 1e9).astype(np.int64)
        if due[-1] <= times[-1] and commands[0].names == at.names:
            now = at.position_rad.astype(np.float64)
            kept.append(Case(moment, at.names, offsets_s, resample(times, told, due), now))
    return kept


class Ranking:
    """Hides the true chunk of a case among `samples` - 1 wrong ones and asks for energies."""

    def __init__(self, future: FutureCapability, samples: int, seed: int = 0) -> None:
        self.future, self.samples, self._rng = future, samples, np.random.default_rng(seed)

    def metrics(self, own: list[Case], others: list[Case]) -> list[Metric]:
        """The figures of one episode; `others`: the cases of other episodes."""
        told: dict[str, list[dict[str, Double]]] = {}
        for case in own:
            hidden = {
                **{f"spread_{spread:g}": self._changed(case, spread) for spread in SPREADS_RAD},
                "elsewhere": self._elsewhere(case, others),
            }
            for kind, chunks in hidden.items():
                costs = self._costs(case, chunks)
                for suffix in ("", "_moving") if case.moving() else ("",):
                    told.setdefault(kind + suffix, []).append(costs)
        metrics = []
        for kind, rows in sorted(told.items()):
            first, beaten = {}, {}
            for method in rows[0]:
                cost = np.stack([row[method] for row in rows])
                worse = cost[:, 1:] > cost[:, :1]
                first[method] = np.asarray(worse.all(1), np.float64)[:, None]
                beaten[method] = worse.mean(1)[:, None]
            for name, columns, chance in (("first", first, 1 / self.samples), ("beaten", beaten, 0.5)):
                columns["chance"] = np.full((len(rows), 1), chance)
                metrics.append(Metric(f"{name}_{kind}", "1", "higher", columns))
        return metrics

    def _changed(self, case: Case, spread_rad: float) -> NDArray[Any]:
        config = ImaginationConfig(samples=self.samples, spread_rad=spread_rad)
        imagination = Imagination(config, case.names, self.future, int(self._rng.integers(2**31)))
        return imagination.changed(case.chunk.astype(np.float32))

    def _elsewhere(self, case: Case, others: list[Case]) -> NDArray[Any]:
        chosen = self._rng.choice(len(others), self.samples - 1, replace=False)
        wrong = [others[int(index)].chunk - others[int(index)].now + case.now for index in chosen]
        return np.stack([case.chunk, *wrong])

    def _costs(self, case: Case, chunks: NDArray[Any]) -> dict[str, Double]:
        """Of each chunk (K,), the true one first: its energy, and what the baselines go by."""
        moment, paths = case.moment, case.wrists(chunks)
        self.future.moment = moment
        queries = [MotionQuery(moment.stamp_ns, "", case.names, case.offsets_s, chunk) for chunk in chunks]
        body: Double = moment.forecast.body[0, : paths.shape[1], :6].double().cpu().numpy()
        forecast = body.reshape(-1, 2, 3)[:, [SIDES.index(side) for side in case.sides]]
        return {
            "model": self.future.judge(queries),
            "forecast": np.linalg.norm(paths - forecast, axis=-1).mean((1, 2)),
            "least_motion": np.linalg.norm(np.diff(paths, axis=1), axis=-1).sum((1, 2)),
        }


def run(
    sources: list[str],
    bundles: dict[str, Path],
    out: Path,
    *,
    samples: int = 8,
    every_s: float = 0.5,
    progress: Callable[[list[Episode]], Iterable[Episode]] = lambda found: found,
) -> dict[str, Any]:
    """Ask at moments of every episode of `sources`; write metrics.json to `out` and return it.

    Shares `first_…` have Wilson intervals over moments, and as all figures intervals of the gain over episodes.

    Args:
        bundles: folders of "state" and "future". samples: K, the true chunk among them.

    Raises:
        UserError: a source cannot be read, or has too few moments with commands.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pipeline = Pipeline(["state", "future"], bundles)
    future = pipeline.capability("future")
    assert isinstance(future, FutureCapability)
    future.wanted = set()
    listed = [episode for source in sources for episode in episodes(source)]
    found = {episode.name: cases(episode, pipeline, every_s) for episode in progress(listed)}
    found = {name: each for name, each in found.items() if each}
    if min((sum(map(len, found.values())) - len(own) for own in found.values()), default=0) < samples - 1:
        raise UserError(f"'{sources[0]}': too few moments with joints and commands; give more episodes")
    ranking, rows = Ranking(future, samples), []
    for name, own in found.items():
        others = [case for other, theirs in found.items() if other != name for case in theirs]
        rows.append(ranking.metrics(own, others))
    metrics = summarise(rows)
    for name, entry in metrics.items():
        if name.startswith("first"):
            entry["wilson_ci95"] = [tidy(edge) for edge in wilson(round(entry["value"] * entry["n"]), entry["n"])]
    moments = {name: len(own) for name, own in found.items()}
    report = {"schema": 1, "inputs": list(moments), "moments": moments, "samples": samples, "metrics": metrics}
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return report
