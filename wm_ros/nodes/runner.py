"""`main` of every node: spin until SIGINT or SIGTERM, then deactivate properly and leave."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import ok, try_shutdown

from wm_ros.nodes.managed import ManagedNode
from wm_ros.nodes.stopping import stop_event

POLL_S = 0.1  # a signal is seen within this time: the wait for messages cannot be interrupted
PARENT = "WM_UP_PID"
PR_SET_PDEATHSIG = 1


def run(make: Callable[[], ManagedNode], args: Sequence[str] | None = None) -> None:
    """Run a node as a process. The context outlives the signal, so that the last command can be published."""
    _follow_parent()
    with stop_event() as stop:
        _run(make, args, stop)
    gc.collect()  # the participant leaves the network and its shared memory
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # unloading torch takes most of a second, and `wm up` stops five of us


def _run(make: Callable[[], ManagedNode], args: Sequence[str] | None, stop: threading.Event) -> None:
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    node = make()
    executor.add_node(node)
    try:
        while not stop.is_set() and ok() and not node.finished:
            try:
                executor.spin_once(timeout_sec=POLL_S)
            except rclpy_implementation.RCLError as error:  # a transition that the state does not allow
                node.get_logger().warning(f"request refused: {str(error).splitlines()[0]}")
    except ExternalShutdownException:
        pass
    finally:
        node.finish()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        try_shutdown()


def _follow_parent() -> None:
    """End with `wm up`, however it ends (Linux only; elsewhere a killed `wm up` leaves its nodes to the user)."""
    parent = os.environ.get(PARENT, "")
    if parent and hasattr(ctypes, "CDLL") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if str(os.getppid()) != parent:
            raise SystemExit(1)
