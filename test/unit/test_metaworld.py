"""The Meta-World robot: its action is a place, its experts solve their tasks by it, and a seed is a world."""

import hashlib
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

# Not importorskip: MuJoCo looks which library draws when it is imported, and ours says so first.
if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)

from wm_ros.data.bags import read_samples, write_bag
from wm_ros.data.simulator import metaworld, metaworld_gl
from wm_ros.data.simulator.metaworld import SETTLE_STEPS, START_NS, demonstrate, metaworld_samples
from wm_ros.data.simulator.metaworld_arm import GAIN, NAMES, TASKS, TRUE_NAMES, MetaWorldArm, set_point_of
from wm_ros.data.simulator.metaworld_view import View, projection
from wm_ros.data.sources import episodes
from wm_ros.errors import UserError
from wm_ros.training.grid import on_grid
from wm_ros.types import Frame, Instruction, JointCommand, Joints, WristFrame


@pytest.fixture(scope="module")
def drawing():
    """Skips where this machine cannot draw off-screen."""
    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        pytest.skip(str(error))


def solve(arm, seed, commands=None):
    """Steps to success (0: none), and what was commanded: by the expert, or `commands` again."""
    arm.reset(seed)
    said = []
    for step in range(250):
        said.append(arm.expert() if commands is None else commands[min(step, len(commands) - 1)])
        if arm.step(said[-1]).success:
            return step + 1, said
    return 0, said


@pytest.mark.parametrize("task", TASKS)
def test_experts_solve_their_tasks_by_set_points_and_the_same_ones_as_float32_do_so_again(task):
    arm = MetaWorldArm(task)
    for seed in range(2):
        steps, said = solve(arm, seed)
        assert 20 < steps < 120
        again, _ = solve(arm, seed, np.array(said, np.float32).astype(np.float64))
        assert abs(again - steps) <= 2


def test_a_set_point_does_what_the_action_of_metaworld_does():
    told, moved = MetaWorldArm("push"), MetaWorldArm("push")
    rng = np.random.default_rng(0)
    for arm in (told, moved):
        arm.reset(5)
    for _ in range(40):
        action = rng.uniform(-1, 1, 4)
        told.step(set_point_of(told.measured, action))
        seen, *_ = moved._env.step(action)
        np.testing.assert_allclose(told.measured, seen[:4], atol=1e-9)


def test_commanding_what_is_measured_stops_the_hand():
    arm = MetaWorldArm("reach")
    arm.reset(0)
    far = np.array([0.0, 0.9, 0.2, 1.0])
    for _ in range(20):
        arm.step(far)
    stop = arm.measured
    for _ in range(80):
        arm.step(stop)
    rest = arm.measured
    arm.step(stop)
    assert np.abs(arm.measured - rest)[:3].max() < 1e-3, "it stands"
    assert np.abs(rest - stop)[:3].max() < 0.01, "where it was told to stop"


def test_absurd_set_points_leave_the_hand_in_the_workspace():
    arm = MetaWorldArm("reach")
    arm.reset(0)
    for _ in range(250):
        arm.step(np.array([1e9, -1e9, 1e9, -50.0]))
    assert np.isfinite(arm.measured).all() and np.abs(arm.measured[:3]).max() < 1.2


def test_a_seed_is_a_world_whatever_came_before():
    arm = MetaWorldArm("drawer-open")
    arm.reset(3)
    first = arm.true_state
    for _ in range(30):
        arm.step(arm.expert())
    arm.reset(4)
    assert not np.allclose(arm.true_state[4:7], first[4:7])
    arm.reset(3)
    np.testing.assert_array_equal(arm.true_state, first)
    fresh = MetaWorldArm("drawer-open")
    fresh.reset(3)
    np.testing.assert_array_equal(fresh.true_state, first)


@pytest.mark.parametrize("task", TASKS)
def test_things_are_seen_first_where_they_are(task):
    arm = MetaWorldArm(task)
    for seed in range(2):
        arm.reset(seed)
        first = arm.true_state[4:7]
        arm.step(arm.measured)
        np.testing.assert_allclose(arm.true_state[4:7], first, atol=0.003)


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_needs_no_more_than_the_true_state(task):
    arm = MetaWorldArm(task)
    arm.reset(1)
    for _ in range(60):
        np.testing.assert_array_equal(arm.expert_action(arm.true_state), arm.expert_action())
        arm.step(arm.expert())


# ---------------------------------------------------------------- demonstrations


def digest(samples):
    total = hashlib.sha256()
    for sample in samples:
        for value in vars(sample).values():
            total.update(value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
    return total.hexdigest()


def test_a_demonstration_has_the_samples_of_a_recorded_episode(drawing):
    samples = list(metaworld_samples(3, "push"))
    steps = [Joints, JointCommand, WristFrame, Frame]
    kinds = [type(sample) for sample in samples]
    assert kinds == [Instruction, *steps * ((len(samples) - 1) // 4)]
    stamps = [s.stamp_ns for s in samples if isinstance(s, Frame)]
    assert stamps == [START_NS + round(i * 1e9 / 80) for i in range(len(stamps))]
    assert samples[0].text == TASKS["push"].text
    assert {s.rgb.shape for s in samples if isinstance(s, Frame | WristFrame)} == {(96, 96, 3)}
    assert {s.frame_id for s in samples if isinstance(s, Frame | WristFrame)} == {"camera", "wrist_camera"}
    assert {s.names for s in samples if isinstance(s, Joints)} == {NAMES}


def test_equal_arguments_give_equal_samples_and_another_seed_others(drawing):
    first = digest(metaworld_samples(3, "pick-place", image_every=20))
    assert digest(metaworld_samples(4, "pick-place", image_every=20)) != first
    assert digest(metaworld_samples(3, "pick-place", image_every=20)) == first


def test_the_command_is_the_experts_and_the_noise_is_only_in_what_happens():
    clean, noisy = (list(metaworld_samples(2, "reach", noise=noise, cameras=0)) for noise in (0.0, 0.3))
    commands = [[s.position_rad for s in samples if isinstance(s, JointCommand)] for samples in (clean, noisy)]
    hands = [[s.position_rad for s in samples if type(s) is Joints] for samples in (clean, noisy)]
    np.testing.assert_array_equal(commands[0][0], commands[1][0])
    assert np.abs(hands[0][20] - hands[1][20]).max() > 0.002
    arm = MetaWorldArm("reach")
    for measured, command in zip(hands[1], commands[1], strict=True):
        assert np.abs(command - measured)[:3].max() <= 1 / GAIN + 1e-9, "never further than full speed asks for"
    arm.reset(2)
    np.testing.assert_array_equal(commands[1][0], arm.expert())


def test_only_solved_demonstrations_are_kept_and_they_end_a_moment_after_success():
    found = [demonstrate(seed, "push", noise=0.5, cameras=0) for seed in range(4)]
    assert sum(demonstration.thrown_away for demonstration in found) > 0, "some tries at so much noise fail"
    for demonstration in found:
        steps = sum(isinstance(s, JointCommand) for s in demonstration.samples)
        assert 0 < demonstration.steps <= steps <= demonstration.steps + SETTLE_STEPS


def test_where_no_try_succeeds_it_is_said(monkeypatch):
    monkeypatch.setattr(metaworld, "MAX_STEPS", 5)
    with pytest.raises(UserError, match="no success in 10 tries"):
        demonstrate(0, "push", cameras=0)


def test_the_true_state_follows_the_joints_where_asked_for():
    samples = list(metaworld_samples(0, "push", cameras=0, true_state=1))
    states = [s for s in samples if type(s) is Joints]
    assert {s.names for s in states} == {TRUE_NAMES}
    goal = states[-1].position_rad[7:]
    assert (
        np.linalg.norm(states[-1].position_rad[4:7] - goal) <= 0.05 < np.linalg.norm(states[0].position_rad[4:7] - goal)
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [("noise=2", "noise"), ("image_every=0", "image_every"), ("cameras=3", "cameras"), ("size=500", "size")],
)
def test_arguments_out_of_range_are_named(options, named):
    with pytest.raises(UserError, match=named):
        episodes(f"sim:metaworld?task=reach&seeds=1&{options}")[0].samples()


def test_a_source_string_names_task_and_seeds():
    found = episodes("sim:metaworld?task=drawer-open&seeds=5-6&cameras=0")
    assert [e.name for e in found] == ["sim-metaworld-drawer-open-000005", "sim-metaworld-drawer-open-000006"]
    assert next(found[0].samples()).text == TASKS["drawer-open"].text
    with pytest.raises(UserError, match="no Meta-World task 'fly'"):
        episodes("sim:metaworld?task=fly&seeds=1")[0].samples()


def test_a_bag_gives_the_samples_back(drawing, tmp_path):
    samples = list(metaworld_samples(1, "reach", image_every=20))
    write_bag(tmp_path / "bag", samples)
    assert digest(read_samples(tmp_path / "bag")) == digest(sorted(samples, key=order))


def order(sample):
    kinds = [Joints, JointCommand, Instruction, WristFrame, Frame]
    return sample.stamp_ns, kinds.index(type(sample))


def test_on_a_grid_both_cameras_are_there_and_neither_is_taken_for_the_other(drawing):
    steps = list(on_grid(metaworld_samples(1, "reach"), 20.0))
    assert len(steps) > 10
    for step in steps:
        assert step.frame.frame_id == "camera" and step.wrist_frame.frame_id == "wrist_camera"
        assert step.frame.stamp_ns == step.wrist_frame.stamp_ns == step.joints.stamp_ns == step.command.stamp_ns


# ---------------------------------------------------------------- pictures


def test_points_of_the_world_are_where_the_picture_shows_them(drawing):
    arm = MetaWorldArm("push")
    with View(arm) as view:
        for seed in range(4):
            arm.reset(seed)
            seen = projection(arm) @ np.append(arm.true_state[7:], 1.0)
            rgb = view.picture("camera").astype(int)
            green = (rgb[..., 1] > 120) & (rgb[..., 0] < 60) & (rgb[..., 2] < 60)  # the ball that marks the goal
            rows, columns = np.nonzero(green)
            assert len(rows) >= 4
            # pixel i covers i … i + 1
            np.testing.assert_allclose(seen[:2] / seen[2], [columns.mean() + 0.5, rows.mean() + 0.5], atol=0.8)


def test_the_camera_on_the_hand_moves_with_it_and_the_other_one_stands(drawing):
    arm = MetaWorldArm("reach")
    with View(arm) as view:
        arm.reset(0)
        before = {name: view.picture(name) for name in ("camera", "wrist_camera")}
        for _ in range(30):
            arm.step(arm.expert())
        changed = {name: (view.picture(name) != before[name]).any(-1).mean() for name in before}
    assert 0.02 < changed["camera"] < 0.5 < changed["wrist_camera"]


@pytest.mark.parametrize("library", ["disable", "osmesa"])
def test_a_machine_that_cannot_draw_says_so_in_one_line_with_the_remedy(library):
    if library == "osmesa" and metaworld_gl._is_here("osmesa"):
        pytest.skip("OSMesa is here")
    command = [sys.executable, "-m", "wm_ros.cli", "robot", "metaworld", "--task", "push"]
    ran = subprocess.run(command, env=os.environ | {"MUJOCO_GL": library}, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: MuJoCo cannot draw off-screen (MUJOCO_GL={library}")
    assert "apt install" in ran.stderr and len(ran.stderr.splitlines()) == 1
