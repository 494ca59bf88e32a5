"""A late policy on the simulated robot: the expert stands in for the model, so that only time counts."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)

from policy_parts import make_head
from test_policy_images import CONFIG

from wm_ros.data.simulator.metaworld_arm import NAMES, MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.errors import UserError
from wm_ros.policy import Policy
from wm_ros.robot.closed_loop import Late, compare, run_late
from wm_ros.types import ActionChunk, Frame, PolicyPrediction

MODEL = CONFIG.model_copy(
    update={
        "joint_names": NAMES,
        "rate_hz": 80.0,
        "chunk_steps": 30,
        "cameras": CONFIG.cameras.model_copy(update={"size": (96, 96)}),
    }
)


class Expert(Policy):
    """Asks the scripted expert, whose set point it repeats."""

    def __init__(self, arm: MetaWorldArm) -> None:
        super().__init__(MODEL, make_head(MODEL))
        self.arm = arm

    def step(self, sample):
        if not isinstance(sample, Frame):
            return None
        points = np.repeat(self.arm.expert()[None].astype(np.float32), 30, 0)
        chunk = ActionChunk(sample.stamp_ns, "", NAMES, np.arange(1, 31) / 80, points)
        return PolicyPrediction(sample.stamp_ns, "", chunk)


@pytest.fixture
def arm():
    made = MetaWorldArm("reach")
    try:
        View(made).close()
    except UserError as error:
        pytest.skip(str(error))
    return made


@pytest.mark.parametrize("strategy", ["queue", "ensemble", "real_time"])
def test_the_expert_solves_its_task_whatever_executes_it_and_later_when_it_is_late(arm, strategy):
    with View(arm) as view:
        prompt, late = (run_late(Expert(arm), arm, view, 7, Late(strategy, delay_s)) for delay_s in (0.0, 0.2))
    assert prompt["success"] and late["success"]
    assert late["steps"] > prompt["steps"] + 8, "16 ticks pass before the first chunk comes"


def test_equal_arguments_give_equal_episodes(arm):
    def episode():
        with View(arm) as view:
            found = run_late(Policy(MODEL, make_head(MODEL)), arm, view, 3, Late("real_time", 0.05, image_every=25))
        return {key: value for key, value in found.items() if "wall" not in key}

    assert episode() == episode()


def test_a_policy_slower_than_its_chunks_gets_the_safe_command(arm):
    with View(arm) as view:
        found = run_late(Expert(arm), arm, view, 7, Late("queue", 0.3))
        never = run_late(Expert(arm), arm, view, 7, Late("queue", 0.45))
    assert found["dry"] > 0
    assert never["steps"] == 250 and never["dry"] == 0, "chunks that come after their end move nothing"


def test_the_table_has_every_delay_and_strategy(arm):
    found = compare(Policy(MODEL, make_head(MODEL)), ["reach"], range(2), (0, 100), image_every=50)
    assert list(found) == ["0 ms", "100 ms"]
    for row in found.values():
        assert set(row) == {"queue", "ensemble", "real_time"}
        assert all(figures["success"]["n"] == 2 and figures["jerk_rms_mps3_median"] > 0 for figures in row.values())
