"""The Meta-World robot and a policy in one process, in simulated time: what a late policy does to success and motion.

Here an inference takes as long as it is told to, whatever the machine, and the executor of the policy node turns chunks
into commands. Equal arguments give equal episodes. Success over DDS is measured by `wm_ros.robot.rollout`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wm_ros.data.simulator.metaworld_arm import NAMES, RATE_HZ, MetaWorldArm
from wm_ros.data.simulator.metaworld_view import View
from wm_ros.policy.capability import Policy
from wm_ros.policy.execution import ExecutionConfig, StrategyName
from wm_ros.policy.executor import Executor
from wm_ros.robot.episode import Episode
from wm_ros.robot.rollout import summary
from wm_ros.types import ActionChunk, PolicyPrediction

START_NS = 10**15
STRATEGIES: tuple[StrategyName, ...] = ("queue", "ensemble", "real_time")


@dataclass(frozen=True)
class Late:
    """How chunks are executed. `delay_s`: from an image to the chunk that answers it. `image_every`: in ticks."""

    strategy: StrategyName
    delay_s: float
    image_every: int = 4
    n_action_steps: int = 0


def run_late(policy: Policy, arm: MetaWorldArm, view: View, seed: int, late: Late) -> dict[str, Any]:
    """One episode; what `Episode.result` says of it."""
    config = ExecutionConfig(
        strategy=late.strategy, control_rate_hz=RATE_HZ, n_action_steps=late.n_action_steps, safe_command="hold"
    )
    executor = Executor(config, NAMES, policy.config.chunk_steps, policy.config.rate_hz)
    episode = Episode(arm, view, seed, START_NS, image_every=late.image_every)
    policy.reset()
    policy.step(episode.instruction())
    waiting: list[tuple[int, ActionChunk]] = []
    free_ns, command = START_NS, arm.set_point
    while not episode.ended:
        now_ns, now_s = episode.now_ns, episode.now_ns / 1e9
        # 1. A chunk that has come meanwhile.
        while waiting and waiting[0][0] <= now_ns:
            executor.add(waiting.pop(0)[1], now_ns, now_s)
        # 2. A new inference, where the last one has ended.
        joints = episode.joints()
        policy.step(joints)
        if episode.looks and now_ns >= free_ns:
            for sample in episode.images():
                prediction = policy.step(sample)
                if isinstance(prediction, PolicyPrediction):
                    free_ns = now_ns + round(late.delay_s * 1e9)
                    waiting.append((free_ns, prediction.chunk))
            if late.delay_s == 0 and waiting:
                executor.add(waiting.pop(0)[1], now_ns, now_s)
        # 3. What the executor says for this control period.
        executor.observe(joints, now_ns, now_s)
        said = executor.tick(now_ns, now_s)
        if said is not None:
            command = said.chunk.position_rad[-1].astype(float)
        episode.advance(command)
    return episode.result() | {"dry": executor.halts}


def compare(
    policy: Policy,
    tasks: Sequence[str],
    seeds: Sequence[int],
    delays_ms: Sequence[int],
    progress: Callable[[Sequence[str]], Iterable[str]] = lambda tasks: tasks,
    image_every: int = 4,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Delay → strategy → figures over all `tasks` and `seeds`, success and jerk among them."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        f"{delay} ms": {strategy: [] for strategy in STRATEGIES} for delay in delays_ms
    }
    for task in progress(tasks):
        arm = MetaWorldArm(task)
        with View(arm) as view:
            for delay in delays_ms:
                for strategy in STRATEGIES:
                    late = Late(strategy, delay / 1e3, image_every)
                    found[f"{delay} ms"][strategy] += [run_late(policy, arm, view, seed, late) for seed in seeds]
    return {
        delay: {
            strategy: {
                **{
                    key: value for key, value in summary(episodes).items() if key in ("success", "jerk_rms_mps3_median")
                },
                "dry": sum(episode["dry"] for episode in episodes),
            }
            for strategy, episodes in row.items()
        }
        for delay, row in found.items()
    }
