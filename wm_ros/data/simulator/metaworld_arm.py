"""One task of Meta-World V3 (MuJoCo) as a robot that is told where its hand should be.

Meta-World takes four numbers in -1..1 eighty times a second: three move a body, to which the hand is tied by a spring,
by up to 1 cm along each axis; the fourth pushes the fingers together (1) or apart (-1). This stack names joints and
gives them positions. So here a proportional controller turns a set point of the hand into these steps, step = GAIN ×
(set point − hand) cut to -1..1, and an action a of Meta-World is the set point hand + a / GAIN, which gives that step:

    ee_x, ee_y, ee_z   m, in the frame of the table (`base`): measured, where the hand is; commanded, where it shall go
    gripper            measured, the opening, 0 closed … 1 open; commanded, 1 pushes the fingers apart, 0 together,
                       0.5 neither

The same names for both, so that what knows JointState and JointTrajectory needs no special case: commanding what is
measured stops the hand. Positions can be interpolated, delayed and drawn, which steps of 1 cm cannot. A set point more
than 10 cm away along an axis is gone for at full speed (0.8 m/s), and the workspace of the task is never left.

(The place of the body that is moved would be an absolute set point too. It runs 3 to 14 cm ahead of the hand, and by
how much nobody sees: policies without memory learn it less well.)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.metaworld_gl import choose_gl
from wm_ros.errors import UserError

Double = NDArray[np.float64]

NAMES = ("ee_x", "ee_y", "ee_z", "gripper")
TRUE_NAMES = (*NAMES, "object_x", "object_y", "object_z", "goal_x", "goal_y", "goal_z")
RATE_HZ = 80.0
MAX_STEPS = 250
"""Of an episode, as the tasks are usually judged."""
FRAME_ID = "base"
GAIN = 10.0
"""Of the controller, 1/m: the step of -1..1 for each metre between hand and set point. Most experts use the same."""
_EXPERT_OBSERVATION = 39


@dataclass(frozen=True)
class Task:
    """A task: Meta-World's name of its expert, and what the robot is told."""

    expert: str
    text: str


TASKS = {
    "reach": Task("SawyerReachV3Policy", "reach the red ball"),
    "push": Task("SawyerPushV3Policy", "push the puck to the green ball"),
    "pick-place": Task("SawyerPickPlaceV3Policy", "pick up the puck and bring it to the blue ball"),
    "drawer-open": Task("SawyerDrawerOpenV3Policy", "open the drawer"),
    "button-press-topdown": Task("SawyerButtonPressTopdownV3Policy", "press the button from above"),
}


@dataclass(frozen=True)
class Outcome:
    """What one tick brought. `reward`: Meta-World's, 0..10. `success`: whether the task is solved now."""

    reward: float
    success: bool


class MetaWorldArm:
    """The robot, its world and its scripted expert. Call `reset` first.

    Args:
        task: one of `TASKS`.

    Raises:
        UserError: no such task, or Meta-World is not installed.
    """

    def __init__(self, task: str) -> None:
        if task not in TASKS:
            raise UserError(f"no Meta-World task '{task}': choose one of {', '.join(TASKS)}")
        choose_gl()
        try:
            from metaworld import policies
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        except ImportError as error:
            raise UserError(
                f"Python module '{error.name}' is missing: pip install 'wm_ros[sim]' brings Meta-World and MuJoCo"
            ) from None
        self.task = task
        self._env: Any = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        # The places of things come from the seed, and the goal is among what the expert sees.
        self._env._set_task_called = self._env.seeded_rand_vec = True
        self._env._freeze_rand_vec = self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)  # it was computed for a hidden goal
        self._expert: Any = getattr(policies, TASKS[task].expert)()
        self._seen: Double = np.zeros(_EXPERT_OBSERVATION)
        self._set_point: Double = np.zeros(len(NAMES))

    @property
    def model(self) -> Any:
        """MuJoCo's model."""
        return self._env.model

    @property
    def data(self) -> Any:
        """MuJoCo's state."""
        return self._env.data

    def reset(self, seed: int) -> None:
        """Begin anew; the seed says where things are. Equal seeds give equal worlds."""
        import mujoco

        self._env.seed(int(seed))
        self._env.reset()
        # Some tasks move a thing after the last look at it (drawer-open): what is seen first would be the old place.
        mujoco.mj_forward(self.model, self.data)
        self._seen = np.array(self._env._get_obs(), np.float64)
        self._set_point = np.append(self._seen[:3], 1.0)

    @property
    def measured(self) -> Double:
        """(4,) where the hand is, and the opening, in the order of `NAMES`."""
        return self._seen[:4].copy()

    @property
    def set_point(self) -> Double:
        """(4,) what was commanded last; after a reset the place of the hand, and open."""
        return self._set_point.copy()

    @property
    def true_state(self) -> Double:
        """(10,) in the order of `TRUE_NAMES`: the object of the task and its goal (zeros where it shows none)."""
        return np.concatenate([self._seen[:7], self._seen[-3:]])

    def expert(self) -> Double:
        """(4,) the set point that the scripted expert asks for now."""
        return set_point_of(self.measured, self.expert_action())

    def expert_action(self, true_state: Double | None = None) -> Double:
        """(4,) -1..1, the expert's action in Meta-World's own terms, now or at a `true_state` (10,) of this task."""
        seen = self._seen
        if true_state is not None:
            seen = np.zeros(_EXPERT_OBSERVATION)
            seen[:7], seen[-3:] = true_state[:7], true_state[7:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "constants may be too high": they are clipped, as is meant
            return np.clip(np.asarray(self._expert.get_action(seen), np.float64), -1.0, 1.0)

    def step(self, set_point: Double) -> Outcome:
        """One tick towards a set point (4,) of finite values."""
        self._set_point = set_point.copy()
        action = np.append(GAIN * (set_point[:3] - self._seen[:3]), 1.0 - 2.0 * set_point[3])
        seen, reward, _, _, info = self._env.step(np.clip(action, -1.0, 1.0))
        self._seen = np.array(seen, np.float64)
        return Outcome(float(reward), bool(info["success"]))


def set_point_of(measured: Double, action: Double) -> Double:
    """(4,) the set point that makes the robot, measured at (4,), do an action (4,) of Meta-World."""
    return np.append(measured[:3] + action[:3] / GAIN, (1.0 - action[3]) / 2.0)
