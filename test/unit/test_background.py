"""A capability in a thread: order, the newest trigger wins, void answers, faults, hanging."""

import threading
import time
from collections.abc import Callable

from policy_parts import instruction, joints, tokens

from wm_ros.capability import Capability
from wm_ros.nodes.background import Answer, Background
from wm_ros.types import Instruction, Joints, Sample, StateTokens


class Slow(Capability):
    """Keeps what it is given; works on a trigger until it is let go."""

    name = "policy"
    inputs = (Joints, StateTokens, Instruction)
    trigger = StateTokens

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Sample | str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault = ""

    def step(self, sample):
        self.given.append(sample)
        if isinstance(sample, StateTokens):
            self.gate.wait(5.0)
            if self.fault:
                raise RuntimeError(self.fault)
            self.withheld = f"stamp {sample.stamp_ns}"

    def reset(self) -> None:
        self.given.append("reset")

    def warm_up(self) -> None: ...

    @classmethod
    def from_bundle(cls, path, device="cpu"):
        raise NotImplementedError


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def collect(background: Background, count: int) -> list[Answer]:
    found: list[Answer] = []
    end = time.monotonic() + 5.0
    while len(found) < count:
        assert time.monotonic() < end
        found += background.answers()
        time.sleep(0.001)
    return found


def test_samples_are_given_in_order_and_a_trigger_is_answered() -> None:
    slow, told = Slow(), threading.Event()
    background = Background(slow, told.set)
    samples = [instruction("go"), joints(0), tokens(0)]
    for sample in samples:
        background.put(sample)
    (answer,) = collect(background, 1)
    assert told.wait(1.0) and slow.given == samples
    assert answer.sample is samples[-1] and answer.withheld == f"stamp {samples[-1].stamp_ns}" and not answer.failure
    background.close()


def test_while_one_is_in_work_only_the_newest_trigger_waits() -> None:
    slow = Slow()
    background = Background(slow, lambda: None)
    slow.gate.clear()
    background.put(tokens(0))
    until(lambda: slow.given)
    for step in range(1, 6):
        background.put(joints(step))
        background.put(tokens(step))
    slow.gate.set()
    answers = collect(background, 2)
    assert [a.sample.stamp_ns for a in answers] == [tokens(0).stamp_ns, tokens(5).stamp_ns]
    assert sum(isinstance(s, Joints) for s in slow.given) == 5, "joints are never overtaken"
    background.close()


def test_a_void_trigger_is_not_answered_and_the_next_one_is() -> None:
    slow = Slow()
    background = Background(slow, lambda: None)
    slow.gate.clear()
    background.put(tokens(0))
    until(lambda: slow.given)
    background.put(tokens(1))
    background.void()
    background.put(tokens(2))
    slow.gate.set()
    (answer,) = collect(background, 1)
    assert answer.sample.stamp_ns == tokens(2).stamp_ns
    assert [s.stamp_ns for s in slow.given if isinstance(s, StateTokens)] == [tokens(0).stamp_ns, tokens(2).stamp_ns]
    background.close()


def test_a_reset_comes_in_turn_and_forgets_what_waits() -> None:
    slow = Slow()
    background = Background(slow, lambda: None)
    slow.gate.clear()
    background.put(tokens(0))
    until(lambda: slow.given)
    background.put(joints(1))
    background.reset()
    background.put(joints(2))
    slow.gate.set()
    until(lambda: len(slow.given) == 3)
    assert slow.given[1] == "reset" and slow.given[2].stamp_ns == joints(2).stamp_ns
    assert background.answers() == []
    background.close()


def test_a_fault_is_an_answer_and_the_thread_lives() -> None:
    slow = Slow()
    background = Background(slow, lambda: None)
    slow.fault = "out of memory"
    background.put(tokens(0))
    assert collect(background, 1)[0].failure == "RuntimeError: out of memory"
    slow.fault = ""
    background.put(tokens(1))
    assert collect(background, 1)[0].failure == ""
    background.close()


def test_while_it_hangs_nobody_waits_and_memory_is_bounded() -> None:
    slow = Slow()
    background = Background(slow, lambda: None)
    slow.gate.clear()
    background.put(tokens(0))
    until(lambda: slow.given)
    began = time.monotonic()
    background.put(instruction("go"))
    for step in range(3000):
        background.put(joints(step))
    background.void()
    background.close(wait_s=0.1)
    assert time.monotonic() - began < 2.0
    assert len(background._waiting) == 1000 and background._waiting[0][0] == instruction("go"), "words are kept"
    slow.gate.set()
    until(lambda: not background._thread.is_alive())
