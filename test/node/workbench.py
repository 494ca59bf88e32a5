"""A driver beside the node under test: publishes samples and bytes, keeps what the node says."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from wm_ros import messages, topics
from wm_ros.kinematics import G1_JOINTS
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.qos import publisher_qos
from wm_ros.types import EgoPose, Frame, Joints, StateTokens, Sweep

ALL = {t.name: t for row in (*topics.INPUTS.values(), *topics.OUTPUTS.values(), (topics.DIAGNOSTICS,)) for t in row}


class Workbench:
    def __init__(self):
        self.context = Context()
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.driver = rclpy.create_node("driver", context=self.context)
        self.executor.add_node(self.driver)
        self.nodes = []
        self.heard = defaultdict(list)
        self.heard_s = defaultdict(list)  # steady times of arrival
        self.order = []
        self._publishers = {}

    # ---- the node under test

    def node(self, kind, **parameters):
        parameters = {"diagnostics_period_s": 0.1} | parameters
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = kind(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def active(self, kind, **parameters):
        node = self.node(kind, **parameters)
        assert node.trigger_configure().name == "SUCCESS", node.problem
        assert node.trigger_activate().name == "SUCCESS"
        return node

    # ---- the world

    def listen(self, *names):
        for name in names:
            topic = ALL[name]
            self.driver.create_subscription(
                message_class(topic.type),
                name,
                lambda cdr, name=name: self._keep(name, cdr),
                publisher_qos(topic),
                raw=True,
            )

    def _keep(self, name, cdr):
        self.heard[name].append(cdr)
        self.heard_s[name].append(time.monotonic())
        self.order.append(name)

    def publish_bytes(self, name, cdr):
        publisher = self._publisher(name)
        publisher.publish(cdr)

    def _publisher(self, name):
        if name not in self._publishers:
            topic = ALL[name]
            publisher = self.driver.create_publisher(message_class(topic.type), name, publisher_qos(topic))
            self._publishers[name] = publisher
        return self._publishers[name]

    def publish(self, *samples):
        for sample in samples:
            for topic, cdr in messages.encode_sample(sample):
                self.publish_bytes(topic.name, cdr)

    def connect(self, node, *names):
        """Wait until the node's subscriptions to `names` have met our publishers, and our ears its publishers."""
        publishers = [self._publisher(name) for name in names]
        self.until(lambda: all(p.get_subscription_count() > 0 for p in publishers), "inputs are connected")
        self.until(lambda: all(node.count_publishers(name) > 0 for name in names), "the node has met them")
        outputs = [name for name in topics.OUTPUTS[node.name] if self.driver.count_subscribers(name.name)]
        self.until(lambda: all(node.listened(topic.name) for topic in outputs), "outputs are connected")

    # ---- time

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def until(self, condition, what, timeout_s=10.0):
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"within {timeout_s} s: {what}"
            self.executor.spin_once(timeout_sec=0.01)

    def now_ns(self):
        return self.driver.get_clock().now().nanoseconds

    # ---- what was heard

    def decoded(self, name, sample=None):
        return [messages.decode(ALL[name].type, cdr, 0, sample, name) for cdr in self.heard[name]]

    def status(self, check):
        """The newest diagnostic status named `<node>: <check>`; one without a name before the first."""
        for cdr in reversed(self.heard["/diagnostics"]):
            for status in messages.decode_diagnostics(cdr):
                if status.name == check:
                    return status
        return messages.Status("", -1, "")

    def close(self):
        for node in self.nodes:
            self.executor.remove_node(node)
            node.finish()
            node.destroy_node()
        self.executor.shutdown(timeout_sec=1.0)
        self.driver.destroy_node()
        self.context.try_shutdown()


# ---- small samples


def sweep(stamp_ns, count=4000, seed=0):
    random = np.random.default_rng(seed)
    points = random.uniform([-40, -40, -1.5, 0], [40, 40, 1.5, 1], (count, 4))
    return Sweep(stamp_ns, "lidar", points.astype(np.float32))


def pose(stamp_ns, x=0.0):
    matrix = np.eye(4)
    matrix[0, 3] = x
    return EgoPose(stamp_ns, "odom", "base_link", matrix)


def frame(stamp_ns, seed=0):
    rgb = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8)
    return Frame(stamp_ns, "camera", rgb)


def joints(stamp_ns, value=0.1):
    return Joints(stamp_ns, "", G1_JOINTS, np.full(len(G1_JOINTS), value))


def tokens(stamp_ns, seed=0):
    values = np.random.default_rng(seed).normal(size=(2, 128)).astype(np.float32)
    return StateTokens(stamp_ns, "camera", values)
