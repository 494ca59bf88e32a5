"""How good the samples of stage I are: energy score, coverage of their 90 % region, and what their energy can tell.

`hand_energy_score@h` (mm, lower): the proper score of the weighted samples of the scored wrist up to h, beside samples
that count alike (`equal`), the central estimate alone (`central`) and as many Gaussian paths around the linear path, as
wide as it errs on training episodes (`ridge_gaussian`). `hand_region90@h`: share of true paths that stay inside the
region of the samples at every step up to h; 0.9 is right. `hand_plausibility`: how often the energy finds the true path
of both wrists more plausible than a sample; 0.5 is chance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_ros.evaluation.scorer import Metric
from wm_ros.future.model import FutureModel
from wm_ros.future.painter import Moment
from wm_ros.future.samples import Fan, energy_score, region

Array = NDArray[np.float64]
REGION_S = (0.5, 1.0, 2.0)


class FanGuess(NamedTuple):
    """Of one prediction: central paths (F, 6), the fan, and as many paths around the linear one, (S, F, 6)."""

    moment: Moment
    central: Tensor
    fan: Fan
    gaussian: Tensor


@torch.inference_mode()
def fan_guess(model: FutureModel, moment: Moment) -> FanGuess:
    """The fan of a moment, as the capability draws it, and its baseline."""
    stage, forecast = model.trajectory, moment.forecast
    fan = stage.imagine(forecast)
    linear = stage.base(moment.batch.body, forecast.kind)[0, :, :6]
    spread = stage.samples.left_open(stage.samples.noise(fan.hands.shape[1]))
    return FanGuess(moment, forecast.body[0, :, :6], fan, linear + spread * forecast.scale[0, :, :6])


@torch.inference_mode()
def fan_metrics(
    model: FutureModel, guesses: list[FanGuess], truths: list[Array], side: int, rows: list[dict[str, Any]]
) -> list[Metric]:
    """Figures over the predictions whose wrists (F, 6) to come, `truths`, are known up to each horizon (else NaN)."""
    rate_hz, mine = model.config.rate_hz, slice(3 * side, 3 * side + 3)
    metrics = []
    for horizon in REGION_S:
        steps = round(horizon * rate_hz)
        known = [n for n, truth in enumerate(truths) if np.isfinite(truth[:steps]).all()]
        if not known:
            continue
        truth = torch.from_numpy(np.stack([truths[n][:steps, mine] for n in known])).float() * 1e3
        paths, gaussian = (
            torch.stack([part[:, :steps, mine] for part in parts]) * 1e3
            for parts in ([guesses[n].fan.hands[0] for n in known], [guesses[n].gaussian for n in known])
        )
        central = torch.stack([guesses[n].central[:steps, mine] for n in known])[:, None] * 1e3
        probability = torch.cat([guesses[n].fan.probability for n in known])
        equal = torch.full_like(probability, 1 / probability.shape[1])
        scores = {
            "model": energy_score(paths, probability, truth),
            "equal": energy_score(paths, equal, truth),
            "ridge_gaussian": energy_score(gaussian, equal, truth),
            "central": energy_score(central, torch.ones(len(central), 1), truth),
        }
        middle, radius = region(paths, probability)
        inside = ((truth - middle).norm(dim=-1) <= radius).all(1)
        columns = {name: score.double().numpy()[:, None] for name, score in scores.items()}
        metrics.append(Metric(f"hand_energy_score@{horizon}s", "mm", "lower", columns))
        covered = inside.double().numpy()[:, None]
        metrics.append(Metric(f"hand_region90@{horizon}s", "1", "0.9", {"model": covered}))
        for n, value, within in zip(known, columns["model"][:, 0], covered[:, 0], strict=True):
            rows[n] |= {f"hand_energy_score@{horizon}s": float(value), f"hand_region90@{horizon}s": bool(within)}
    return metrics + _plausibility(model, guesses, truths)


def _plausibility(model: FutureModel, guesses: list[FanGuess], truths: list[Array]) -> list[Metric]:
    known = [n for n, truth in enumerate(truths) if np.isfinite(truth).all()]
    told = []
    for n in known:
        true = torch.from_numpy(truths[n]).float()[None, None]
        energy = model.trajectory.plausibility(guesses[n].moment.forecast, true)
        told.append(float((energy < guesses[n].fan.energy).float().mean()))
    if not told:
        return []
    values = {"model": np.array(told)[:, None], "chance": np.full((len(told), 1), 0.5)}
    return [Metric("hand_plausibility", "1", "higher", values)]
