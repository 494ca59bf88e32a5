"""Normalisation modes: the formulas, there and back, and dimensions that do not vary."""

import pytest
import torch

from wm_ros.errors import UserError
from wm_ros.policy.normalise import MODES, Feature, Normaliser, Processor, check_shapes, statistics

DATA = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 0.1]) + 3.0


def test_statistics_are_those_of_the_data() -> None:
    found = statistics(DATA)
    assert set(found) == {"mean", "std", "min", "max", "count", "q01", "q10", "q50", "q90", "q99"}
    torch.testing.assert_close(found["mean"], DATA.mean(0))
    torch.testing.assert_close(found["q50"], DATA.double().quantile(0.5, 0).float())
    assert found["count"].item() == 5000
    inside = ((found["q01"] <= DATA) & (found["q99"] >= DATA)).float().mean()
    assert inside == pytest.approx(0.98, abs=0.001)


@pytest.mark.parametrize("mode", MODES)
def test_there_and_back_is_the_same(mode: str) -> None:
    normaliser = Normaliser(mode, statistics(DATA))  # type: ignore[arg-type]
    torch.testing.assert_close(normaliser.unnormalise(normaliser.normalise(DATA)), DATA, atol=1e-5, rtol=1e-5)


def test_the_formulas() -> None:
    stats = {
        name: torch.tensor([value])
        for name, value in {"mean": 1.0, "std": 2.0, "min": -1.0, "max": 3.0, "q01": 0.0, "q99": 2.0}.items()
    } | {"q10": torch.tensor([0.5]), "q90": torch.tensor([1.5])}
    x = torch.tensor([2.0])
    expected = {"IDENTITY": 2.0, "MEAN_STD": 0.5, "MIN_MAX": 0.5, "QUANTILES": 1.0, "QUANTILE10": 2.0}
    for mode, value in expected.items():
        assert Normaliser(mode, stats).normalise(x).item() == pytest.approx(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "IDENTITY"])
def test_a_dimension_that_does_not_vary_does_not_blow_up(mode: str) -> None:
    still = torch.cat([DATA[:, :1], torch.full((5000, 1), 1.57)], 1)
    normaliser = Normaliser(mode, statistics(still))  # type: ignore[arg-type]
    moved = torch.tensor([[3.0, 1.57 + 0.01]])
    found = normaliser.normalise(moved)
    assert found.isfinite().all() and found[0, 1].abs() < 1.1
    torch.testing.assert_close(normaliser.unnormalise(found), moved)
    at_rest = normaliser.normalise(torch.tensor([[3.0, 1.57]]))[0, 1].item()
    assert at_rest == pytest.approx(0.0 if mode == "MEAN_STD" else -1.0, abs=1e-4), "where LeRobot puts it"


def test_a_processor_normalises_by_type_and_leaves_the_rest() -> None:
    features = {"observation.state": Feature(type="STATE", shape=(3,)), "action": Feature(type="ACTION", shape=(3,))}
    processor = Processor(
        features,
        {"STATE": "MEAN_STD", "ACTION": "MIN_MAX"},
        {"observation.state": statistics(DATA), "action": statistics(DATA)},
    )
    batch = {"observation.state": DATA[None], "action": DATA[None], "task": ["go"], "observation.images.a": DATA}
    found = processor.before(batch)
    assert found["observation.state"].std() == pytest.approx(1.0, abs=1e-3)
    assert found["action"].min() == pytest.approx(-1.0) and found["action"].max() == pytest.approx(1.0)
    assert found["task"] == ["go"] and found["observation.images.a"] is DATA
    torch.testing.assert_close(processor.after(found["action"]), batch["action"])


def test_a_feature_without_statistics_passes_and_a_mode_without_its_own_is_refused() -> None:
    features = {"action": Feature(type="ACTION", shape=(3,))}
    assert Processor(features, {"ACTION": "MIN_MAX"}, {}).after(DATA) is DATA
    with pytest.raises(UserError, match="'action': QUANTILES needs q01"):
        Processor(features, {"ACTION": "QUANTILES"}, {"action": {"mean": DATA[0], "std": DATA[0]}})


def test_statistics_of_another_shape_are_refused() -> None:
    features = {
        "action": Feature(type="ACTION", shape=(4,)),
        "observation.images.a": Feature(type="VISUAL", shape=(3, 8, 8)),
    }
    with pytest.raises(UserError, match=r"'action': .* has shape \(3,\), the feature asks for \(4,\)"):
        check_shapes(features, {"action": statistics(DATA)})
    check_shapes(features, {"observation.images.a": {"mean": torch.zeros(3, 1, 1)}})
