"""Malformed, late, silent or repeated input is refused; the node lives and the next good message counts."""

from __future__ import annotations

import time

import numpy as np
import pytest
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from workbench import frame, pose, sweep

from wm_ros import messages
from wm_ros.nodes.lidar_encoder import LidarEncoder
from wm_ros.nodes.state_tokenizer import StateTokenizer
from wm_ros.types import StateTokens, Sweep


def test_a_flood_of_damaged_clouds_leaves_the_node_alive_with_one_warning(bench):
    bench.listen("bev/tokens", "/diagnostics")
    node = bench.active(LidarEncoder)
    bench.connect(node, "points", "odom")
    warnings = []
    node.get_logger().warning, plain = warnings.append, node.get_logger().warning
    whole = messages.encode_sample(sweep(bench.now_ns()))[0][1]
    random = np.random.default_rng(0)
    for number in range(300):
        cdr = bytearray(whole[: random.integers(4, 400)] if number % 2 else whole)
        for at in random.integers(4, min(len(cdr), 250), 30):
            cdr[at] = random.integers(256)
        bench.publish_bytes("points", bytes(cdr))
        bench.spin(0.002)
    node.get_logger().warning = plain
    bench.spin(0.3)
    refused = node.streaks.total["malformed"]
    assert refused > 50, "the flood arrived"
    assert len([line for line in warnings if "malformed" in line]) <= 1 + len(bench.heard["bev/tokens"])
    before = len(bench.heard["bev/tokens"])
    good = sweep(bench.now_ns(), seed=1)
    bench.publish(pose(good.stamp_ns), good)
    bench.until(lambda: len(bench.heard["bev/tokens"]) > before, "the next good sweep is processed")
    bench.until(
        lambda: int(bench.status("lidar_encoder: refused").values.get("malformed", 0)) >= refused,
        "refusals are counted",
    )


def test_a_node_does_not_take_its_own_work_for_silence_of_its_input(bench):
    bench.listen("bev/tokens")
    node = bench.active(LidarEncoder, input_timeout_s=0.4)
    bench.connect(node, "points", "odom")
    silences = []
    node.on_silence = silences.append
    step = node.capability.step
    node.capability.step = lambda sample: (time.sleep(0.5 if isinstance(sample, Sweep) else 0.0), step(sample))[1]
    for number in range(4):
        now = bench.now_ns()
        bench.publish(pose(now, 0.1 * number), sweep(now, seed=number))
        bench.until(lambda n=number: len(bench.heard["bev/tokens"]) > n, "tokens of every sweep")
        bench.spin(0.15)
    assert "points" not in silences, "it could not hear while it was at work"


def test_without_odometry_there_are_tokens_but_no_occupancy(bench):
    bench.listen("bev/tokens", "bev/occupancy/t_1000", "/diagnostics")
    node = bench.active(LidarEncoder, input_timeout_s=0.3)
    bench.connect(node, "points", "odom")
    for number in range(6):
        bench.publish(sweep(bench.now_ns(), seed=number))
        bench.until(lambda n=number: len(bench.heard["bev/tokens"]) > n, "tokens without odometry")
        bench.spin(0.1)
    assert bench.heard["bev/occupancy/t_1000"] == []
    bench.until(lambda: "withheld" in bench.status("lidar_encoder: output").message, "diagnostics say what is withheld")
    bench.until(lambda: "'odom'" in bench.status("lidar_encoder: inputs").message, "diagnostics name the silent input")
    assert bench.status("lidar_encoder: inputs").level == messages.status.STALE
    for number in range(8):
        now = bench.now_ns()
        bench.publish(pose(now, 0.1 * number), sweep(now, seed=number))
        bench.spin(0.1)
    bench.until(lambda: bench.heard["bev/occupancy/t_1000"], "occupancy once odometry has come")


def test_old_repeated_and_out_of_order_images_are_refused(bench):
    bench.listen("state/tokens")
    node = bench.active(StateTokenizer)
    bench.connect(node, "image")
    now = bench.now_ns()
    for expected, stamp in ((1, now), (1, now), (1, now - 50_000_000), (1, now - 60 * 10**9), (1, now + 60 * 10**9)):
        bench.publish(frame(stamp))
        bench.spin(0.2)
        assert len(bench.heard["state/tokens"]) == expected
    bench.publish(frame(bench.now_ns()))
    bench.until(lambda: len(bench.heard["state/tokens"]) == 2, "the next good image is processed")
    assert set(node.streaks.total) == {"repeated", "out of order", "too old", "ahead of the clock"}


def test_silence_becomes_stale_and_ends_with_the_next_image(bench):
    bench.listen("/diagnostics")
    node = bench.active(StateTokenizer, input_timeout_s=0.3)
    bench.connect(node, "image")
    bench.publish(frame(bench.now_ns()))
    bench.spin(0.2)
    bench.until(lambda: bench.status("state_tokenizer: inputs").level == messages.status.STALE, "silence is STALE")
    bench.publish(frame(bench.now_ns()))
    bench.until(lambda: bench.status("state_tokenizer: inputs").level == messages.status.OK, "it is OK again")


@pytest.mark.parametrize("simulated", [False, True])
def test_a_clock_that_jumps_back_clears_history(bench, simulated):
    bench.listen("state/tokens", "state/motion")
    node = bench.node(StateTokenizer, max_age_s=0.0)
    if simulated:
        node.set_parameters([Parameter("use_sim_time", value=True)])
    node.trigger_configure()
    node.trigger_activate()
    bench.connect(node, "image")
    clock = bench.driver.create_publisher(Clock, "/clock", 10)
    if simulated:
        bench.until(lambda: clock.get_subscription_count() > 0, "the node follows /clock")

    def tick(seconds):
        stamp = int(seconds * 1e9)
        if simulated:
            clock.publish(messages.encode_clock(stamp))
            bench.until(lambda: node.now_ns() == stamp, "the clock has arrived")
        bench.publish(frame(stamp, int(seconds * 10)))
        count = len(bench.heard["state/tokens"])
        bench.until(lambda: len(bench.heard["state/tokens"]) > count, "tokens")

    for seconds in (100.0, 100.1, 100.2):
        tick(seconds)
    bench.until(lambda: len(bench.heard["state/motion"]) == 2, "motion between images")
    tick(50.0)
    bench.spin(0.2)
    assert len(bench.heard["state/motion"]) == 2, "no motion across the jump"
    tick(50.1)
    bench.until(lambda: len(bench.heard["state/motion"]) == 3, "motion goes on after it")
    assert [t.stamp_ns for t in bench.decoded("state/tokens", StateTokens)][-2:] == [50 * 10**9, 50_100_000_000]


def test_a_short_jump_of_the_clock_alone_clears_history(bench):
    bench.listen("state/tokens", "state/motion")
    node = bench.node(StateTokenizer)
    node.set_parameters([Parameter("use_sim_time", value=True)])
    node.trigger_configure()
    node.trigger_activate()
    bench.connect(node, "image")
    clock = bench.driver.create_publisher(Clock, "/clock", 10)
    bench.until(lambda: clock.get_subscription_count() > 0, "the node follows /clock")
    for number, stamp in enumerate((100_000_000_000, 100_400_000_000, 100_100_000_000)):
        clock.publish(messages.encode_clock(stamp))
        bench.until(lambda s=stamp: node.now_ns() == s, "the clock has arrived")
        bench.publish(frame(stamp, number))
        bench.until(
            lambda n=number: len(bench.heard["state/tokens"]) > n, "tokens, for the stamp is right by the clock"
        )
    bench.spin(0.2)
    assert len(bench.heard["state/motion"]) == 1, "no motion across the jump"
