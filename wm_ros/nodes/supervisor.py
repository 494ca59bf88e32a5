"""Starts nodes as processes, brings them up in order, watches them, restarts a crashed one, and stops them in order."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from wm_ros import messages, topics
from wm_ros.errors import UserError
from wm_ros.messages.status import ERROR, OK, Status
from wm_ros.nodes import shared_memory
from wm_ros.nodes.bag_qos import message_class
from wm_ros.nodes.runner import PARENT

START_S = 60.0  # a process must offer its services within this time
ANSWER_S = 3.0  # a node that still speaks so long after a request has not received it
HEARTBEAT_S = 15.0  # an active node says something on /diagnostics within this time
STEADY_S = 60.0  # active for as long as this: the back-off begins anew
LONGEST_BACK_OFF_S = 30.0
STOP_S = 4.0  # after this a process that still runs is killed
DEACTIVATE_S = 0.8


@dataclass
class Child:
    """One node as a process.

    Attributes:
        state: starting, configuring, inactive, activating, active, waiting (to be started again) or ended.
        since_s: steady time at which `state` began.
        failures: crashes in a row; retry_s: steady time of the next start.
        statuses: its last diagnostics, by check; heard_s: when they came.
        shared: names of the shared-memory files that it has used.
    """

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    state: str = "waiting"
    since_s: float = 0.0
    failures: int = 0
    retry_s: float = 0.0
    statuses: dict[str, Status] = field(default_factory=dict)
    heard_s: float = 0.0
    shared: set[str] = field(default_factory=set)
    client: Any = None
    future: Any = None

    @property
    def label(self) -> str:
        """Lifecycle state that the node itself last spoke of; "" before it has said anything."""
        status = self.statuses.get("lifecycle")
        return status.values.get("state", "") if status else ""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


def back_off_s(failures: int) -> float:
    """1, 2, 4 … 30 s after the 1st, 2nd, 3rd … crash in a row."""
    return min(2.0 ** (failures - 1), LONGEST_BACK_OFF_S)


class Supervisor:
    """Call `start`, then `tick` again and again, then `stop`.

    Args:
        commands: node name → command line of its process, in the order of bring-up.
        namespace: of the nodes, "" or "/robot".
        report: called with a child whenever its state changes.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], namespace: str, report: Callable[[Child, str], None]
    ) -> None:
        self.children = [Child(name, list(command)) for name, command in commands.items()]
        self.namespace = namespace.rstrip("/")
        self.report = report
        self._noted_s = 0.0
        self._began_epoch_s = time.time()
        self.context = Context()
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("wm_up", context=self.context, namespace=namespace or None)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        kind = message_class(topics.DIAGNOSTICS.type)
        self.node.create_subscription(kind, topics.DIAGNOSTICS.name, self._heard, 50, raw=True)
        for child in self.children:
            service = f"{self.namespace}/{child.name}/change_state"
            child.client = self.node.create_client(ChangeState, service)

    def start(self) -> None:
        """Start all processes; they load in parallel and are configured in order by `tick`."""
        for child in self.children:
            self._spawn(child)

    def tick(self, timeout_s: float = 0.1) -> None:
        """Handle what has happened. Raises UserError where a node refuses its configuration."""
        self.executor.spin_once(timeout_sec=timeout_s)
        if time.monotonic() - self._noted_s > 1.0:
            self._note_shared(self.children)
        for index, child in enumerate(self.children):
            if child.state == "waiting":
                if time.monotonic() >= child.retry_s:
                    self._spawn(child)
            elif child.state != "ended" and not child.alive:
                self._exited(child)
            else:
                self._advance(child, self.children[:index])

    def all_active(self) -> bool:
        return all(child.state == "active" for child in self.children)

    def all_ended(self) -> bool:
        return all(child.state == "ended" for child in self.children)

    def stop(self) -> None:
        """Deactivate and end the nodes, last one first; kill what is left; leave no shared-memory file."""
        deadline_s = time.monotonic() + STOP_S
        self._note_shared(self.children)
        for child in reversed(self.children):
            if child.alive and child.process is not None:
                if child.state == "active":
                    self._deactivate(child, min(deadline_s, time.monotonic() + DEACTIVATE_S))
                child.process.terminate()
        for child in reversed(self.children):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                self._set(child, "ended", "killed: it did not end in time")
            else:
                self._set(child, "ended", "stopped")
        own = shared_memory.used_by(os.getpid())
        self.executor.shutdown(timeout_sec=0.5)
        self.node.destroy_node()
        self.context.try_shutdown()
        noted = own.union(*(child.shared for child in self.children))
        # A process killed right after it made a file was never seen with it: what is new and unused is such a file.
        shared_memory.remove_unused(noted | shared_memory.appeared_since(self._began_epoch_s), but_for=os.getpid())

    # ------------------------------------------------------------------ one child

    def _spawn(self, child: Child) -> None:
        environment = os.environ | {PARENT: str(os.getpid())}
        # A session of its own: Ctrl-C reaches us alone, and we stop the nodes in order.
        child.process = subprocess.Popen(child.command, env=environment, start_new_session=True)
        child.statuses, child.future = {}, None
        self._set(child, "starting", f"pid {child.process.pid}")

    def _advance(self, child: Child, earlier: list[Child]) -> None:
        """From one state to the next when it is this child's turn."""
        now_s = time.monotonic()
        if child.state == "starting":
            busy = any(other.state in ("starting", "configuring") for other in earlier)
            # It has spoken itself: the services of a killed predecessor look alive for some seconds more.
            if not busy and child.label == "unconfigured" and child.client.service_is_ready():
                self._request(child, Transition.TRANSITION_CONFIGURE, "configuring")
            elif not busy and now_s - child.since_s > START_S:
                self._restart(child, f"not ready after {START_S:g} s")
        elif child.state == "inactive":
            if not any(other.state in ("starting", "configuring", "inactive", "activating") for other in earlier):
                self._request(child, Transition.TRANSITION_ACTIVATE, "activating")
        elif child.state in ("configuring", "activating"):
            self._await_transition(child)
        elif child.state == "active":
            if now_s - child.since_s > STEADY_S:
                child.failures = 0
            if now_s - max(child.heard_s, child.since_s) > HEARTBEAT_S:
                self._restart(child, f"no word on {topics.DIAGNOSTICS.name} for {HEARTBEAT_S:g} s")

    def _await_transition(self, child: Child) -> None:
        start, goal = ("unconfigured", "inactive") if child.state == "configuring" else ("inactive", "active")
        if child.future.done():
            if not child.future.result().success:
                raise UserError(self._reason(child))
            self._set(child, goal, "")
        elif child.heard_s - child.since_s > ANSWER_S:  # it is not at work on it, or its answer was lost
            if child.label == goal:
                self._set(child, goal, "")
            elif child.label == start:
                child.state, child.since_s = ("starting" if goal == "inactive" else "inactive"), time.monotonic()

    def _request(self, child: Child, transition: int, state: str) -> None:
        request = ChangeState.Request()
        request.transition.id = transition
        child.future = child.client.call_async(request)
        self._set(child, state, "")

    def _restart(self, child: Child, why: str) -> None:
        assert child.process is not None
        self._note_shared([child])
        child.process.kill()
        child.process.wait()
        self._crashed(child, why)

    def _exited(self, child: Child) -> None:
        assert child.process is not None
        if child.process.returncode == 0:
            self._set(child, "ended", "shut down on request")
        else:
            self._crashed(child, f"exit code {child.process.returncode}")

    def _crashed(self, child: Child, why: str) -> None:
        child.failures += 1
        wait_s = back_off_s(child.failures)
        child.retry_s = time.monotonic() + wait_s
        shared_memory.remove_unused(child.shared)
        self._set(child, "waiting", f"{why}; starts again in {wait_s:g} s")

    def _deactivate(self, child: Child, deadline_s: float) -> None:
        request = ChangeState.Request()
        request.transition.id = Transition.TRANSITION_DEACTIVATE
        future = child.client.call_async(request)
        while not future.done() and child.alive and time.monotonic() < deadline_s:
            self.executor.spin_once(timeout_sec=0.05)

    def _reason(self, child: Child) -> str:
        """Why a transition was refused: the node says so on /diagnostics."""
        deadline_s = time.monotonic() + 2.0
        while time.monotonic() < deadline_s:
            status = child.statuses.get("lifecycle")
            if status is not None and status.level == ERROR:
                return status.message
            self.executor.spin_once(timeout_sec=0.05)
        return f"{child.name} refused {child.state}; its log says why"

    def _note_shared(self, children: Sequence[Child]) -> None:
        self._noted_s = time.monotonic()
        for child in children:
            if child.process is not None:
                child.shared |= shared_memory.used_by(child.process.pid)

    def _heard(self, cdr: bytes) -> None:
        for status in messages.decode_diagnostics(cdr):
            node, _, check = status.name.partition(": ")
            for child in self.children:
                if child.name == node:
                    child.heard_s = time.monotonic()
                    child.statuses[check] = status

    def _set(self, child: Child, state: str, detail: str) -> None:
        child.state, child.since_s = state, time.monotonic()
        self.report(child, detail)


def worst(child: Child) -> Status | None:
    """The check that is worst now, None while all are in order."""
    bad = [status for status in child.statuses.values() if status.level != OK]
    return max(bad, key=lambda status: status.level, default=None)


def node_command(name: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a shipped node."""
    return [sys.executable, "-m", f"wm_ros.nodes.{name}", "--ros-args", *arguments]
