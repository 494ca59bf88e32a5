"""How `policy` is scored: its chunks against what was commanded, beside baselines that see what it sees.

`action_mae@h`: mean absolute error in rad over the joints of the bundle and over all steps of the chunk up to h, as
they would be executed. Truth is the command in force at each step's stamp; predictions whose steps reach beyond the
last command are left out. Methods whose name says `command` see the commands sent so far, the others, `hold` too, see
measured joints alone. The model sees commands where its bundle hears them; `hold_command`, which repeats the last one,
stands beside every bundle as a stricter yardstick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.bundle import load_bundle, load_weights, select
from wm_ros.evaluation.scorer import Metric, Scorer, Scores
from wm_ros.policy import baselines
from wm_ros.policy.config import PolicyModelConfig
from wm_ros.policy.context import Observation
from wm_ros.policy.history import TOLERANCE_NS, History, grid_ns
from wm_ros.policy.past import PastPath, Pasts
from wm_ros.types import ActionChunk, JointCommand, Joints, PolicyPrediction, Prediction, Sample

HORIZONS_S = (0.2, 0.5, 1.0)
METHODS = ("model", "hold", "hold_command", "constant_velocity", "phase", "ridge")
COMMANDED = ("constant_velocity_commands", "ridge_commands")  # where the bundle hears commands
Double = NDArray[np.float64]


class PolicyScorer(Scorer):
    """Collects commands, joints and chunks of one episode."""

    name = "policy"

    def __init__(self, bundle: Path) -> None:
        config, tensors = load_bundle(bundle, self.name, PolicyModelConfig)
        self.model = config.model
        self.fitted = {name: value.double().numpy() for name, value in select(tensors, "baseline").items()}
        self._columns: dict[tuple[str, ...], NDArray[np.int64] | None] = {}
        self._past: Pasts | None = None
        if self.model.past is not None:
            self._past = Pasts(self.model, self.model.past)
            load_weights(self._past, tensors, "model.past", bundle)
            self._past.eval()
        self._history = History(self.model.joint_history / self.model.rate_hz + 1.0)
        self._steps = self.model.past.commands if self.model.past is not None else 0
        self._told = History(self._steps / self.model.rate_hz + 1.0)
        self._commands: list[tuple[int, NDArray[np.float32]]] = []
        self._chunks: list[ActionChunk] = []
        self._seen: list[Observation] = []
        self._first_ns, self._last_ns = 0, 0

    def observe(self, sample: Sample) -> None:
        """Joints are history and commands truth; both say how long the episode is."""
        if not isinstance(sample, Joints):
            return
        self._first_ns = min(self._first_ns or sample.stamp_ns, sample.stamp_ns)
        self._last_ns = max(self._last_ns, sample.stamp_ns)
        columns = self._place(sample.names)
        if columns is None or not np.isfinite(position := sample.position_rad[columns].astype(np.float32)).all():
            return
        if isinstance(sample, JointCommand):
            self._commands.append((sample.stamp_ns, position))
            self._told.add(sample.stamp_ns, position)
        else:
            self._history.add(sample.stamp_ns, position)

    def predict(self, prediction: Prediction) -> None:
        """Keep the chunk, and the joints and commands that were known then."""
        if not isinstance(prediction, PolicyPrediction) or self._history.newest_ns is None:
            return
        self._chunks.append(prediction.chunk)
        told: tuple[Tensor, ...] = ()
        if self._steps:
            told = self._at(self._told, prediction.stamp_ns, self._steps)
        self._seen.append(
            Observation(
                *self._at(self._history, prediction.stamp_ns, self.model.joint_history),
                torch.zeros(0),
                *(None,) * 6,
                *told,
            )
        )

    def finish(self) -> Scores:
        """Errors of every method on the predictions whose commands are all known."""
        if not self._chunks or not self._commands:
            return Scores()
        stamps = np.asarray([chunk.stamp_ns for chunk in self._chunks])
        offsets_s = self._chunks[0].offsets_s
        due = stamps[:, None] + np.rint(offsets_s * 1e9).astype(np.int64)
        truth, known = self._commanded(due)
        methods = self._methods(stamps, offsets_s)
        scores = Scores(rows=[{"stamp_ns": int(stamp)} for stamp in stamps])
        for horizon in HORIZONS_S:
            steps = int(np.sum(offsets_s <= horizon + 1e-6))
            scored = known[:, :steps].all(1)
            if not steps or not scored.any():
                continue
            errors = {m: np.abs(chunk - truth)[:, :steps].mean((1, 2)) for m, chunk in methods.items()}
            key = f"action_mae@{horizon:.1f}s"
            scores.metrics.append(Metric(key, "rad", "lower", {m: e[scored][:, None] for m, e in errors.items()}))
            for index in np.flatnonzero(scored):
                scores.rows[index][key] = float(errors["model"][index])
        scores.rows = [row for row in scores.rows if len(row) > 1]
        scores.pictures["action chunks against what was commanded"] = self._picture(stamps, methods["model"])
        return scores

    # ------------------------------------------------------------------------- parts

    def _at(self, history: History, now_ns: int, steps: int) -> tuple[Tensor, Tensor]:
        """(steps, J) values up to `now_ns`, and (steps,) where there was none."""
        if history.newest_ns is None:
            return torch.zeros(steps, len(self.model.joint_names)), torch.ones(steps, dtype=torch.bool)
        values, pad, _ = history.at(grid_ns(now_ns, list(range(steps - 1, -1, -1)), self.model.rate_hz))
        return torch.from_numpy(values), torch.from_numpy(pad)

    def _place(self, names: tuple[str, ...]) -> NDArray[np.int64] | None:
        """Columns of the bundle's joints among `names`, None where one is missing."""
        if names not in self._columns:
            place = {name: index for index, name in enumerate(names)}
            there = all(name in place for name in self.model.joint_names)
            self._columns[names] = np.asarray([place[n] for n in self.model.joint_names]) if there else None
        return self._columns[names]

    def _commanded(self, due_ns: NDArray[np.int64]) -> tuple[Double, NDArray[np.bool_]]:
        """Command in force at each stamp (..., J), and whether it is known."""
        stamps = np.asarray([stamp for stamp, _ in self._commands])
        place = np.searchsorted(stamps, due_ns + TOLERANCE_NS, side="right") - 1
        positions = np.stack([position for _, position in self._commands]).astype(np.float64)
        return positions[np.maximum(place, 0)], (place >= 0) & (due_ns <= stamps[-1] + TOLERANCE_NS)

    def _methods(self, stamps: NDArray[np.int64], offsets_s: Double) -> dict[str, Double]:
        """Chunks (n, F, J) of the model and of each baseline."""
        fields = zip(*self._seen, strict=True)
        seen = Observation._make(None if parts[0] is None else torch.stack(parts) for parts in fields)
        joints = seen.joints.double().numpy()
        steps = len(offsets_s)
        length_s = max((self._last_ns - self._first_ns) / 1e9, 1e-9)
        now = (stamps - self._first_ns) / 1e9
        last_command, sent = self._commanded(stamps)
        last_command = np.where(sent[:, None], last_command, joints[:, -1])
        chunks = (
            np.stack([chunk.position_rad for chunk in self._chunks]).astype(np.float64),
            baselines.hold(joints, steps),
            np.repeat(last_command[:, None], steps, axis=1),
            baselines.constant_velocity(joints, steps),
            self._phase(seen, now / length_s, (now[:, None] + offsets_s) / length_s),
            self._ridge(seen._replace(commands=None, commands_pad=None)),
        )
        methods = dict(zip(METHODS, chunks, strict=True))
        if seen.commands is not None and seen.commands_pad is not None:
            known = torch.where(seen.commands_pad[..., None], seen.joints[:, -1:], seen.commands).double().numpy()
            velocity = baselines.constant_velocity(known, steps, baselines.COMMANDS_DAMPING, baselines.COMMANDS_BACK)
            methods |= dict(zip(COMMANDED, (velocity, self._ridge(seen)), strict=True))
        return methods

    def _phase(self, seen: Observation, now: Double, later: Double) -> Double:
        """As the mean episode of the kind of recording that each moment looks like."""
        joints = seen.joints[:, -1].double().numpy()
        fitted = [self.fitted[f"phase_{what}"] for what in ("measured", "commanded")]
        if self._past is None:
            return baselines.phase_way(joints, now, later, *fitted)
        kinds = self._past.kind(seen.joints).numpy()
        chunks = np.empty((*later.shape, joints.shape[1]))
        for kind in np.unique(kinds):
            own = kinds == kind
            chunks[own] = baselines.phase_way(joints[own], now[own], later[own], *(means[kind] for means in fitted))
        return chunks

    def _ridge(self, seen: Observation) -> Double:
        joints = seen.joints.double().numpy()
        if self._past is None:
            return baselines.ridge(joints, self.fitted["ridge"])

        def linear(path: PastPath, inputs: Tensor, name: str) -> Tensor:
            coefficients = torch.from_numpy(self.fitted[f"ridge.{name}"])
            return (coefficients[0] + inputs.double() @ coefficients[1:]).unflatten(1, path.size)

        chunk: Double = joints[:, -1:] + self._past.routed(seen, linear).numpy()
        return chunk

    def _picture(self, stamps: NDArray[np.int64], chunks: Double) -> NDArray[np.uint8]:
        """The six joints that moved most: what was commanded, and every seventh chunk."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        times = np.asarray([stamp for stamp, _ in self._commands])
        commanded = np.stack([position for _, position in self._commands])
        most = np.sort(np.argsort(-np.ptp(commanded, axis=0), kind="stable")[:6])
        figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        start = times[0]
        offsets: Any = self._chunks[0].offsets_s
        for panel, joint in zip(figure.subplots(2, 3, sharex=True).flat, most, strict=False):
            panel.plot((times - start) / 1e9, commanded[:, joint], color="black", linewidth=1.5, label="commanded")
            for index in range(0, len(stamps), 7):
                label = "chunk" if index == 0 else None
                at_s = (stamps[index] - start) / 1e9 + offsets
                panel.plot(at_s, chunks[index, :, joint], color="tab:orange", linewidth=0.8, alpha=0.8, label=label)
            panel.set_title(self.model.joint_names[joint], fontsize=8)
            panel.tick_params(labelsize=7)
            panel.set_ylabel("rad", fontsize=7)
        figure.axes[0].legend(fontsize=7)
        figure.supxlabel("seconds", fontsize=8)
        canvas.draw()
        picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        return picture


SCORER = PolicyScorer
