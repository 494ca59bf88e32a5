"""The simulated robot on the wire: it speaks by its own clock, obeys what is right, and what is wrong moves nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("metaworld") is None:
    pytest.skip("Meta-World is not installed: pip install 'wm_ros[sim]'", allow_module_level=True)

import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter as Param
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from wm_ros import messages
from wm_ros.data.simulator.metaworld_arm import NAMES, TASKS, MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.errors import UserError
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.policy import Policy
from wm_ros.nodes.qos import publisher_qos, subscription_qos
from wm_ros.nodes.robot import CHUNK, CLOCK, SAYS, RobotOptions, run_robot
from wm_ros.nodes.state_tokenizer import StateTokenizer
from wm_ros.types import ActionChunk, PolicyPrediction

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from policy_parts import CONFIG, write_bundle

DT = 1 / 80


@pytest.fixture(scope="module", autouse=True)
def drawing():
    try:
        View(MetaWorldArm("reach")).close()
    except UserError as error:
        pytest.skip(str(error))


class World:
    """The robot in a thread, and beside it somebody who hears and commands it."""

    def __init__(self, task="reach", **options):
        self.heard = defaultdict(list)
        self.context = Context()
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("somebody", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        for topic in SAYS:
            keep = self._keep(topic)
            profile = subscription_qos(topic, False)
            self.node.create_subscription(message_class(topic.type), topic.name, keep, profile, raw=True)
        self.publisher = self.node.create_publisher(message_class(CHUNK.type), CHUNK.name, publisher_qos(CHUNK))
        self.services = {name: self.node.create_client(Trigger, f"robot/{name}") for name in ("reset", "result")}
        self.parameters = self.node.create_client(SetParameters, "robot/set_parameters")
        self.answer = None
        self.stop = threading.Event()
        options = {"on_reset": True, "image_every": 4} | options
        self.thread = threading.Thread(target=run_robot, args=(task, RobotOptions(**options), self.stop))

    def __enter__(self):
        self.thread.start()
        self.until(lambda: all(s.service_is_ready() for s in (*self.services.values(), self.parameters)), "services")
        self.until(lambda: self.publisher.get_subscription_count() > 0, "the robot hears")
        self.until(lambda: self.heard["/clock"], "we hear the robot")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _keep(self, topic):
        def keep(cdr):
            if topic is CLOCK:
                self.heard["/clock"].append(messages.decode_clock(cdr))
                return
            sample = messages.decode(topic.type, cdr, 0, topic.sample, topic.name)
            self.heard[topic.name].append(sample)
            if topic.name == "image" and self.answer is not None:
                self.answer(sample.stamp_ns)

        return keep

    def until(self, condition, what, timeout_s=30.0):
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"within {timeout_s} s: {what}"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, client, request):
        future = client.call_async(request)
        self.until(future.done, "an answer")
        return future.result()

    def reset(self, seed=None):
        if seed is not None:
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
            assert self.call(self.parameters, request).results[0].successful
        answer = self.call(self.services["reset"], Trigger.Request())
        assert answer.success
        return json.loads(answer.message)

    def result(self):
        return json.loads(self.call(self.services["result"], Trigger.Request()).message)

    def send(self, stamp_ns, points, names=NAMES, step_s=DT):
        points = np.atleast_2d(np.asarray(points, np.float32))
        chunk = ActionChunk(stamp_ns, "", names, np.arange(1, len(points) + 1) * step_s, points)
        for _, _, cdr in messages.encode_prediction(PolicyPrediction(stamp_ns, "", chunk)):
            self.publisher.publish(cdr)

    def ended(self):
        # Not asked too often: in lock-step every question is a message that the robot takes between ticks.
        self.spin(0.05)
        return self.result()["ended"]


def since(heard, start_ns):
    return [sample for sample in heard if sample.stamp_ns >= start_ns]


def test_it_says_what_a_robot_says_with_the_stamps_of_its_own_clock():
    with World(lock_step=True, timeout_s=0.1, image_every=25) as world:
        begun = world.reset(3)
        world.until(world.ended, "the end", 60.0)
        start = begun["start_ns"]
        images, wrists = (since(world.heard[name], start) for name in ("image", "wrist_image"))
        assert sorted({i.stamp_ns for i in images}) == [start + round(k * 25e9 / 80) for k in range(10)]
        assert {i.stamp_ns for i in wrists} == {i.stamp_ns for i in images}
        assert images[0].rgb.shape == wrists[0].rgb.shape == (96, 96, 3)
        joints = since(world.heard["joint_states"], start)
        stamps = sorted({j.stamp_ns for j in joints})
        assert stamps == [start + round(k * 1e9 / 80) for k in range(251)]
        assert {j.names for j in joints} == {NAMES}
        assert set(stamps) <= {tick for tick in world.heard["/clock"] if tick >= start}
        assert world.heard["instruction"][-1].text == TASKS["reach"].text


def test_without_a_policy_it_waits_as_long_as_it_is_told_and_then_goes_on_without_moving():
    with World(lock_step=True, timeout_s=0.2, image_every=50) as world:
        begun = world.reset(1)
        began = time.monotonic()
        world.until(world.ended, "the end", 60.0)
        assert time.monotonic() - began > 5 * 0.2
        result = world.result()
        assert (result["waits"], result["timeouts"], result["chunks"]) == (5, 5, 0)
        assert result["held_steps"] == result["steps"] == 250 and not result["success"]
        hand = np.array([j.position_rad[:3] for j in since(world.heard["joint_states"], begun["start_ns"])])
        assert np.abs(hand - hand[0]).max() < 0.005, "it holds its place"


def test_in_lock_step_it_does_what_the_answer_to_each_image_says():
    target = np.array([0.05, 0.75, 0.25, 0.5])
    with World(lock_step=True) as world:
        world.answer = lambda stamp: world.send(stamp, [target] * 4)
        begun = world.reset(2)
        world.until(world.ended, "the end", 60.0)
        result = world.result()
        assert result["timeouts"] == 0 and result["held_steps"] == 0 and result["refused"] == {}
        assert result["waits"] == result["chunks"] and result["round_trip_ms"]["median"] > 0
        joints = since(world.heard["joint_states"], begun["start_ns"])
        np.testing.assert_allclose(joints[-1].position_rad[:3], target[:3], atol=0.005)
        commands = since(world.heard["joint_commands"], begun["start_ns"])
        np.testing.assert_allclose(commands[-1].position_rad, target, atol=1e-6)


def test_rubbish_is_refused_counted_and_moves_nothing():
    bad = np.array([0.3, 0.9, 0.4, 1.0])
    with World(lock_step=True, timeout_s=0.3, image_every=50) as world:

        def rubbish(stamp):
            world.send(stamp, [bad] * 9, names=("ee_x", "ee_y", "ee_z", "finger"))
            world.send(stamp, [bad] * 9, names=("gripper", *NAMES))
            world.send(stamp - 10**9, [bad] * 9)
            world.send(stamp + 10**9, [bad] * 9)
            good = messages.encode_prediction(
                PolicyPrediction(stamp, "", ActionChunk(stamp, "", NAMES, np.array([DT]), bad[None].astype(np.float32)))
            )[0][2]
            place = good.index(np.float64(np.float32(0.3)).tobytes())
            world.publisher.publish(good[:place] + np.float64(np.nan).tobytes() + good[place + 8 :])
            world.publisher.publish(good[:-30])

        world.answer = rubbish
        begun = world.reset(1)
        world.until(world.ended, "the end", 60.0)
        result = world.result()
        assert result["chunks"] == 0 and result["timeouts"] == 5
        assert set(result["refused"]) == {"wrong joints", "malformed", "past", "ahead of the clock"}
        assert result["refused"]["malformed"] >= 15 and result["refused"]["past"] >= 5
        hand = np.array([j.position_rad[:3] for j in since(world.heard["joint_states"], begun["start_ns"])])
        assert np.abs(hand - hand[0]).max() < 0.005
        target = np.array([0.05, 0.75, 0.25, 0.5])
        world.answer = lambda stamp: world.send(stamp, [target] * 50)
        world.reset(1)
        world.until(world.ended, "the end", 60.0)
        assert world.result()["refused"] == {} and world.result()["chunks"] == 5, "and it obeys what is right again"


def test_a_trajectory_without_a_stamp_means_now_as_the_policys_safe_command_does():
    with World(lock_step=False) as world:
        world.reset(1)
        world.spin(0.5)
        stop = world.heard["joint_states"][-1].position_rad
        world.send(0, [stop], step_s=0.1)
        world.until(lambda: world.result()["chunks"] == 1, "it is taken")
        assert world.result()["refused"] == {}


def test_a_reset_begins_the_episode_of_a_seed_and_what_was_planned_before_is_no_command_any_more():
    with World(lock_step=True, timeout_s=0.2, image_every=10) as world:
        first = world.reset(7)
        world.until(lambda: len(since(world.heard["image"], first["start_ns"])) > 1, "images")
        image = since(world.heard["image"], first["start_ns"])[0]
        late = since(world.heard["image"], first["start_ns"])[-1].stamp_ns
        second = world.reset(8)
        assert second["seed"] == 8 and second["start_ns"] <= first["start_ns"] - 10**9, "the clock jumps back"
        world.send(late, [[0.3, 0.9, 0.4, 1.0]] * 100)
        world.until(lambda: world.result()["refused"], "the old plan is refused")
        assert world.result()["refused"] == {"ahead of the clock": 1}

        def first_image(begun):
            seen = lambda: [i for i in world.heard["image"] if i.stamp_ns == begun["start_ns"]]  # noqa: E731
            world.until(seen, "the first image")
            return seen()[0].rgb

        assert (first_image(second) != image.rgb).any()
        np.testing.assert_array_equal(first_image(world.reset(7)), image.rgb)


def test_the_first_images_are_taken_again_where_nobody_answers_them():
    with World(lock_step=True, timeout_s=20.0, image_every=125) as world:
        seen = []

        def answer(stamp):
            seen.append(stamp)
            if len(seen) > 1:
                world.send(stamp, [[0.0, 0.7, 0.2, 1.0]] * 125)

        world.answer = answer
        begun = world.reset(1)
        world.until(world.ended, "the end", 60.0)
        assert world.result()["timeouts"] == 0
        tick = 12_500_000
        assert seen == [begun["start_ns"], begun["start_ns"] + tick, begun["start_ns"] + 126 * tick]
        stamps = sorted({j.stamp_ns for j in since(world.heard["joint_states"], begun["start_ns"])})
        assert stamps == [begun["start_ns"] + k * tick for k in range(252)]


def test_a_seed_that_is_none_is_refused():
    with World() as world:
        for value in (
            ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=-1),
            ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="seven"),
        ):
            request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
            assert not world.call(world.parameters, request).results[0].successful
        assert world.reset()["seed"] == 0


def test_in_real_time_it_waits_for_nobody_and_is_never_ahead_of_the_wall():
    with World(lock_step=False) as world:
        began = time.monotonic()
        world.reset(1)
        world.until(world.ended, "the end", 60.0)
        assert time.monotonic() - began >= 250 * DT
        assert world.result()["waits"] == 0


def test_left_alone_it_goes_on_with_the_next_seed():
    with World(on_reset=False, lock_step=False, rate=20.0, image_every=125, seed=5) as world:
        world.until(lambda: world.result()["seed"] >= 7, "the third episode", 60.0)


def test_results_do_not_depend_on_how_slow_the_answers_are():
    results = []
    for pause_s in (0.0, 0.05):
        with World("button-press-topdown", lock_step=True, image_every=10) as world:
            goal = MetaWorldArm("button-press-topdown")
            goal.reset(4)
            above, press = goal.true_state[4:7] + [0, 0, 0.12], goal.true_state[4:7] - [0, 0, 0.1]

            def answer(stamp, world=world, above=above, press=press, pause_s=pause_s):
                time.sleep(pause_s)
                place = above if stamp < world.start + 600_000_000 else press
                world.send(stamp, [[*place, 0.0]] * 10)

            world.answer = answer
            world.start = 10**18 - 10 * 10**9  # of the first episode after the one that stands at the beginning
            begun = world.reset(4)
            assert begun["start_ns"] == world.start
            world.until(world.ended, "the end", 60.0)
            found = world.result()
            results.append({key: found[key] for key in ("success", "steps", "return", "held_steps", "timeouts")})
    assert results[0] == results[1] and results[0]["success"]


def test_the_policy_node_drives_it_and_begins_each_episode_anew(tmp_path):
    config = CONFIG.model_copy(
        update={"joint_names": NAMES, "rate_hz": 20.0, "chunk_steps": 10, "state_width": 128, "bev_tokens": 0}
        | {"bev_width": 0}
    )
    bundle = write_bundle(tmp_path / "policy", config)
    with World("push", lock_step=True, image_every=25, timeout_s=20.0) as world:
        said = []
        told = message_class(CHUNK.type)
        world.node.create_subscription(told, CHUNK.name, said.append, subscription_qos(CHUNK, False), raw=True)
        nodes = [
            kind(context=world.context, parameter_overrides=[Param(name, value=value) for name, value in given.items()])
            for kind, given in (
                (StateTokenizer, {"use_sim_time": True}),
                (Policy, {"use_sim_time": True, "bundle": str(bundle), "input_timeout_s": 60.0}),
            )
        ]
        for node in nodes:
            world.executor.add_node(node)
            assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS", node.problem
        world.until(lambda: all(node.count_publishers("image") for node in nodes), "the nodes have met the robot")
        episodes = []
        for seed in (6, 9, 6):
            begun = world.reset(seed)
            world.until(world.ended, "the end", 120.0)
            result = world.result()
            assert result["timeouts"] == 0 and result["refused"] == {} and result["chunks"] >= result["waits"]
            chunks = [messages.decode(CHUNK.type, cdr, 0, ActionChunk) for cdr in said]
            episodes.append([c for c in chunks if c.stamp_ns >= begun["start_ns"]])
            said.clear()
        first, other, again = (np.array([c.position_rad for c in chunks]) for chunks in episodes)
        assert first.shape[1:] == (10, 4)
        np.testing.assert_array_equal(again, first)
        assert np.abs(other[: len(first)] - first[: len(other)]).max() > 1e-3
        for node in nodes:
            world.executor.remove_node(node)
            node.finish()
            node.destroy_node()


def test_a_sensor_that_fails_says_nothing_from_then_on():
    with World("reach", lock_step=True, image_every=4, timeout_s=0.02, off=("wrist_image",), off_after_s=0.5) as world:
        start_ns = world.reset(3)["start_ns"]
        world.until(world.ended, "the end", 60.0)
        last = {name: max(s.stamp_ns for s in world.heard[name]) - start_ns for name in ("image", "wrist_image")}
        assert last["image"] > 2_500_000_000 and 300_000_000 < last["wrist_image"] < 500_000_000
