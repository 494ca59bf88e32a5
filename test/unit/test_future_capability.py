"""What the capability promises its callers, on tiny random weights."""

import numpy as np
import pytest
import torch

from wm_ros.errors import RefusedError
from wm_ros.future import FutureCapability
from wm_ros.future.config import FramesConfig, FutureConfig, SamplesConfig, TrajectoryConfig
from wm_ros.future.history import body_of
from wm_ros.future.model import FutureModel
from wm_ros.kinematics import G1_JOINTS, arm_for
from wm_ros.nn.autoencoder import AutoencoderConfig
from wm_ros.nn.preprocessing import resize_area
from wm_ros.types import Frame, HandTrajectory, Instruction, JointCommand, Joints, MotionQuery, StateTokens

CONFIG = FutureConfig(
    state_width=16,
    image_height=32,
    image_width=64,
    trajectory=TrajectoryConfig(width=32, layers=1, heads=2),
    samples=SamplesConfig(count=8, steps=4, coefficients=6, width=16),
    frames=FramesConfig(width=32, layers=1, heads=2),
    autoencoder=AutoencoderConfig(channels=4, width=16, blocks=1),
)
START_NS = 1_000_000_000_000


@pytest.fixture(scope="module")
def model() -> FutureModel:
    torch.manual_seed(0)
    model = FutureModel(CONFIG).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "conv_out" in name or "body_out" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def capability(model) -> FutureCapability:
    return FutureCapability(model)


def stamp(step: float) -> int:
    return START_NS + round(step * 1e9 / 15)


def joints(step: float, value: float = 0.1) -> Joints:
    return Joints(stamp(step), "", G1_JOINTS, np.full(26, value) * np.linspace(0, 1, 26))


def frame(step: float) -> Frame:
    rgb = np.random.default_rng(int(step * 10)).integers(0, 255, (48, 96, 3), dtype=np.uint8)
    return Frame(stamp(step), "camera", rgb)


def tokens(step: float) -> StateTokens:
    values = np.random.default_rng(int(step * 10)).normal(size=(2, 16)).astype(np.float32)
    return StateTokens(stamp(step), "camera", values)


def feed(capability: FutureCapability, steps: int, first: int = 0):
    prediction = None
    for step in range(first, first + steps):
        for sample in (joints(step, 0.1 + 0.01 * step), frame(step), tokens(step)):
            prediction = capability.step(sample)
    return prediction


def test_a_prediction_has_hands_joints_samples_and_frames(capability):
    prediction = feed(capability, 5)
    assert prediction.stamp_ns == stamp(4)
    assert [hand.side for hand in prediction.hands] == ["left", "right"]
    assert all(hand.position_m.shape == (30, 3) and hand.frame_id == "torso" for hand in prediction.hands)
    assert (prediction.hands[0].offsets_s > 0).all()
    assert prediction.hands[0].offsets_s[-1] == pytest.approx(2.0)
    assert prediction.joints.names == G1_JOINTS
    assert prediction.joints.position_rad.shape == (30, 26)
    assert prediction.samples.shape == (8, 2, 30, 3)
    assert prediction.probability.sum() == pytest.approx(1.0, abs=1e-5)
    assert prediction.frames.rgb.shape == (3, 32, 64, 3)
    assert len(prediction.frames.hand_error_m) == 3 and min(prediction.frames.hand_error_m) >= 0
    assert capability.hand_error_m == prediction.frames.hand_error_m and capability.reader_error_m == 0.0
    assert prediction.frames.horizons_s == (0.33, 0.67, 1.0)
    assert capability.withheld == ""
    assert list(capability.timings_ms) == ["window", "trajectory", "frames"]


def test_two_runs_over_the_same_samples_are_equal(model):
    first, second = (feed(FutureCapability(model), 6) for _ in range(2))
    assert np.array_equal(first.samples, second.samples)
    assert np.array_equal(first.frames.rgb, second.frames.rgb)


def test_without_joints_nothing_is_predicted_and_the_reason_said(capability):
    capability.step(frame(0))
    assert capability.step(tokens(0)) is None
    assert "joint_states" in capability.withheld


def test_stale_joints_are_not_used(capability):
    capability.step(joints(0))
    assert capability.step(tokens(30)) is None
    assert "older" in capability.withheld


def test_commands_are_not_taken_for_measurements(capability):
    capability.step(JointCommand(stamp(0), "", G1_JOINTS, np.zeros(26)))
    assert capability.step(tokens(0)) is None


def test_no_instruction_is_fine_and_an_instruction_is_heard(model):
    silent = FutureCapability(model)
    told = FutureCapability(model)
    told.step(Instruction(stamp(0), "", "grasp the red can"))
    assert not np.allclose(feed(silent, 3).samples, feed(told, 3).samples)


def test_frames_are_painted_only_where_wanted(capability):
    capability.wanted = set()
    assert feed(capability, 3).frames is None
    assert capability.withheld == ""


def test_without_an_image_there_are_no_frames_but_hands(capability):
    capability.step(joints(0))
    prediction = capability.step(tokens(0))
    assert prediction.frames is None
    assert len(prediction.hands) == 2
    assert "image" in capability.withheld


def test_frames_are_painted_from_the_image_of_the_state_not_the_newest(model):
    late, in_order = FutureCapability(model), FutureCapability(model)
    for sample in (joints(0), frame(0), frame(1), joints(1)):
        late.step(sample)
    for sample in (joints(0), frame(0)):
        in_order.step(sample)
    late_rgb, rgb = late.step(tokens(0)).frames.rgb, in_order.step(tokens(0)).frames.rgb
    assert late.moment.frame.stamp_ns == stamp(0)
    assert np.abs(late_rgb.astype(int) - rgb).mean() < 20  # the trajectory differs a little, the picture does not


def test_a_clock_that_jumps_back_clears_what_was_measured(model):
    jumped, fresh = FutureCapability(model), FutureCapability(model)
    feed(jumped, 6, first=100)
    assert np.array_equal(feed(jumped, 3).samples, feed(fresh, 3).samples)


def test_reset_forgets_everything(model):
    used, fresh = FutureCapability(model), FutureCapability(model)
    used.step(Instruction(stamp(0), "", "lift it"))
    feed(used, 6)
    used.reset()
    assert np.array_equal(feed(used, 3, 20).samples, feed(fresh, 3, 20).samples)


def test_warm_up_leaves_no_trace(model):
    warm, cold = FutureCapability(model), FutureCapability(model)
    warm.wanted = {"frames"}
    warm.warm_up()
    assert warm.wanted == {"frames"}
    assert np.array_equal(feed(warm, 2).samples, feed(cold, 2).samples)


def test_joints_in_another_order_and_from_two_publishers_are_the_same_joints(model):
    whole, parts = FutureCapability(model), FutureCapability(model)
    expected = feed(whole, 4).samples
    for step in range(4):
        all_of = joints(step, 0.1 + 0.01 * step)
        for chosen in (list(range(25, 12, -1)), list(range(12, -1, -1))):
            names = tuple(G1_JOINTS[i] for i in chosen)
            parts.step(Joints(stamp(step), "", names, all_of.position_rad[chosen]))
        parts.step(frame(step))
        prediction = parts.step(tokens(step))
    assert np.allclose(prediction.samples, expected, atol=1e-5)


def test_joints_that_are_not_numbers_or_not_known_are_refused(capability):
    capability.step(Joints(stamp(0), "", G1_JOINTS, np.full(26, np.nan)))
    assert "finite" in capability.withheld
    capability.step(Joints(stamp(0), "", ("wheel",), np.zeros(1)))
    assert "none of the model's joints" in capability.withheld
    assert capability.step(tokens(0)) is None


def test_tokens_of_another_encoder_are_refused(capability):
    capability.step(joints(0))
    assert capability.step(StateTokens(stamp(0), "camera", np.zeros((2, 1024), np.float32))) is None
    assert "(2, 1024)" in capability.withheld


def test_arms_alone_give_hands_but_no_joints(capability):
    arms = tuple(name for side in ("left", "right") for name in arm_for(G1_JOINTS, side).joint_names)
    capability.step(Joints(stamp(0), "", arms, np.zeros(14)))
    prediction = capability.step(tokens(0))
    assert len(prediction.hands) == 2
    assert prediction.joints.names == ()


def test_a_hand_path_serves_where_the_arm_is_not_known(capability):
    here = np.array([[0.3, -0.2, 0.1]], np.float32)
    path = HandTrajectory(stamp(0), "torso", "right", np.zeros(1), here, np.ones(1, bool))
    capability.step(path)
    prediction = capability.step(tokens(0))
    assert [hand.side for hand in prediction.hands] == ["right"]
    capability.step(HandTrajectory(stamp(1), "map", "right", np.zeros(1), here, np.ones(1, bool)))
    assert "'map'" in capability.withheld


def test_a_hand_of_another_kind_is_refused_and_said_and_leaves_the_known_one_alone(capability):
    here = np.array([[0.3, -0.2, 0.1]], np.float32)
    capability.step(HandTrajectory(stamp(1), "torso", "right", np.zeros(1), here, np.ones(1, bool)))
    box = np.array([[0.5, 0.5, 0.1, 0.2]], np.float32)
    capability.step(HandTrajectory(stamp(0), "torso", "right", np.zeros(1), box, np.ones(1, bool), "box"))
    assert capability.withheld == "hand_right is of kind 'box', the model was trained on 'wrist_m'"
    assert capability.step(tokens(1)) is not None, "the wrist of before is still there, though the box was older"


def test_history_follows_header_stamps_not_arrival(model):
    """Joints at 50 Hz give the window that joints on the grid give."""
    fast, slow = FutureCapability(model), FutureCapability(model)
    course = lambda step: 0.02 * step  # noqa: E731
    for step in np.arange(0, 20.01, 0.25):
        fast.step(joints(float(step), course(step)))
    for step in range(21):
        slow.step(joints(step, course(step)))
    for each in (fast, slow):
        each.step(tokens(20))
    assert np.allclose(fast.moment.window.body, slow.moment.window.body, atol=1e-4)


def query(names: tuple[str, ...], offsets_s: list[float], values: list[list[float]]) -> MotionQuery:
    return MotionQuery(0, "", names, np.array(offsets_s), np.array(values, np.float32).reshape(-1, len(names)))


def test_a_model_without_a_reader_says_nothing_of_the_hand_in_its_frames(model):
    sizes = CONFIG.frames.model_copy(update={"reader_width": 0})
    capability = FutureCapability(FutureModel(CONFIG.model_copy(update={"frames": sizes})).eval())
    assert feed(capability, 5).frames.hand_error_m == ()
    assert capability.reader_error_m is None


def test_the_hand_is_looked_for_in_any_frames(capability):
    feed(capability, 5)
    moment = capability.moment
    still = np.repeat(resize_area(moment.frame.rgb, 32, 64)[None], 3, 0)
    there = moment.forecast.body.clone()
    there[:, :, :6] = torch.from_numpy(moment.window.body[-1, :6])
    away = there.clone()
    away[:, :, 3] += 0.2
    at_rest, far = (capability.painter.hand_error_m(moment, still, path) for path in (there, away))
    assert np.mean(far) > np.mean(at_rest)


def test_a_question_about_the_foreseen_motion_is_answered_by_the_foreseen_frames(capability):
    """Asked for the joints that it forecasts itself, it paints on the wrists that those joints give."""
    prediction = feed(capability, 5)
    joints = prediction.joints
    body = body_of(G1_JOINTS, G1_JOINTS, joints.position_rad.astype(np.float64))
    expected = capability.paint(capability.moment, torch.from_numpy(body.astype(np.float32))[None]).rgb
    frames = capability.answer(MotionQuery(0, "", joints.names, joints.offsets_s, joints.position_rad))
    assert (frames.stamp_ns, frames.frame_id) == (stamp(4), "camera") and frames.rgb.shape == (3, 32, 64, 3)
    assert np.abs(frames.rgb.astype(int) - expected).max() <= 1  # knots pass through float seconds


def test_other_motions_are_answered_by_other_frames_and_the_rest_of_the_body_stays(capability):
    feed(capability, 5)
    elbow, asked = ("kRightElbow",), []
    for angle in (0.0, 1.0):
        asked.append(capability.answer(query(elbow, [0.5, 1.0], [[angle], [angle]])).rgb)
    assert not np.array_equal(*asked)
    now = capability.moment.window.body[-1, 6:]
    others = tuple(name for name in G1_JOINTS if name != elbow[0])
    still = [now[G1_JOINTS.index(name)] for name in others]
    both = capability.answer(query((*elbow, *others), [0.5, 1.0], [[1.0, *still]] * 2)).rgb
    assert np.abs(both.astype(int) - asked[1]).max() <= 1


@pytest.mark.parametrize(
    "asked, said",
    [
        (query(("gripper",), [1.0], [[0.1]]), "moves none of the model's joints"),
        (query(("kRightElbow",), [], []), "moves none of the model's joints"),
    ],
)
def test_a_question_that_moves_nothing_is_refused(capability, asked, said):
    feed(capability, 3)
    with pytest.raises(RefusedError, match=said):
        capability.answer(asked)


def test_before_the_first_prediction_no_question_is_answered(capability):
    with pytest.raises(RefusedError, match="nothing to start from"):
        capability.answer(query(("kRightElbow",), [1.0], [[0.1]]))
