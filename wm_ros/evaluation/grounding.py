"""Does the instruction decide where the hand goes? Simulated tables with several objects, and words exchanged.

One moment of each scene: the last step of the grid before the hand begins to move, when only the words and the image
can say what it will take. Up to then the capability hears what a robot would: joints at every step, images now and one
state earlier. Then it predicts three times from the same input:

    right   the instruction of the scene
    wrong   the same words with the name of another object of the scene, drawn from those in reach of the same hand,
            or from all where there are none
    none    no instruction

`wrist_error@h`: distance (mm) between the forecast wrist of the hand that takes and where it is h seconds later.

`picked`: which object is the hand heading for? Judged is the hand that the forecast moves further by 2 s. Candidates
are all objects that this hand can reach; for each, the place of the wrist when the hand closes around it is known
(`tabletop_plan.grip_m`). The one that is nearest, seen from above, to where the forecast has the wrist after 2 s is
picked; right is the object of the scene's own instruction. Counted are scenes in which the hand that takes has at
least two candidates. Beside the forecasts: `hold`, no motion: the nearest object to the hand that takes; `chance`, one
of its candidates; `truth`, where the hands really were after 2 s, which says how good the measure itself can be.
`follows_wrong` is the share of those scenes in which the wrong words lead to the object that they name.

`subtask`: at one later moment of each scene, drawn evenly from the rest of the episode, is the phrase right that a
model says for what is being done? Its baseline is the phrase that is the most frequent answer over all scenes asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_ros.data.simulator.tabletop import START_NS, Stage, stage
from wm_ros.data.simulator.tabletop_motion import subtask as true_subtask
from wm_ros.data.simulator.tabletop_plan import grip_m
from wm_ros.data.simulator.tabletop_scene import Item
from wm_ros.evaluation.scorer import Metric
from wm_ros.future.capability import FutureCapability
from wm_ros.future.history import body_of
from wm_ros.kinematics import G1_JOINTS, SIDES
from wm_ros.state.capability import StateCapability
from wm_ros.types import Frame, FuturePrediction, Instruction, Joints, StatePrediction, StateTokens

EPISODE_S = 6.0
HORIZONS_S = (1.0, 2.0)
ASKED = ("right", "wrong", "none")
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """One scene: what was asked, and where both wrists are forecast to be.

    Attributes:
        shown: the scene. step: of the moment. other: the object that the wrong words name.
        paths: words → (sides, F, 3) forecast wrists in the torso frame (m); `truth` is what came. start: (sides, 3).
        subtask: what is said and what is true at the later moment; None for a model that does not say.
    """

    shown: Stage
    step: int
    other: Item
    start: Double
    paths: dict[str, Double]
    subtask: tuple[str, str] | None

    @property
    def side(self) -> int:
        """Number of the hand that takes."""
        return SIDES.index(self.shown.scene.plans[0].side)


def ask(state: StateCapability, future: FutureCapability, seed: int, choice: int) -> Answer:
    """Forecast one scene with each of `ASKED`. Raises UserError where the simulator refuses the scene."""
    config = future.config
    times = np.arange(round(EPISODE_S * config.rate_hz)) / config.rate_hz
    shown = stage(seed, times, choice=choice)
    scene = shown.scene
    step = int(scene.plans[0].strokes[0].begin_s * config.rate_hz)
    # What a robot would have heard by then.
    state.reset()
    future.reset()
    future.wanted = set()
    tokens = hear(state, future, shown, range(step + 1))
    # The same moment with other words.
    other = _another(seed, shown)
    texts = {"right": shown.text, "wrong": shown.text.replace(scene.items[0].words, other.words), "none": ""}
    bodies = body_of(G1_JOINTS, G1_JOINTS, shown.joints)[:, :6].reshape(-1, 2, 3).transpose(1, 0, 2)
    paths = {"truth": bodies[:, step + 1 : step + 1 + config.horizon_steps]}
    for name in ASKED:
        future.step(Instruction(tokens.stamp_ns, "", texts[name]))
        said = future.step(tokens)
        assert isinstance(said, FuturePrediction) and len(said.hands) == len(SIDES)
        paths[name] = np.stack([hand.position_m for hand in said.hands]).astype(np.float64)
    # Later, what is being done.
    subtask = None
    if config.subtasks:
        later = int(np.random.default_rng([seed, 3]).integers(step + config.state_gap_steps, len(times)))
        future.step(Instruction(tokens.stamp_ns, "", shown.text))
        said = future.step(hear(state, future, shown, range(step + 1, later + 1)))
        assert isinstance(said, FuturePrediction)
        subtask = said.subtask, true_subtask(scene.plans[0], float(times[later]))
    return Answer(shown, step, other, bodies[:, step], paths, subtask)


def hear(state: StateCapability, future: FutureCapability, shown: Stage, steps: range) -> StateTokens:
    """Let the capability hear the joints of some steps, and images at the last one and one state earlier.

    Returns:
        the state at the last one, which it has heard too.
    """
    seen: StatePrediction | None = None
    for index in steps:
        stamp = START_NS + round(float(shown.times_s[index]) * 1e9)
        future.step(Joints(stamp, "", G1_JOINTS, shown.joints[index]))
        if index in (steps[-1], max(steps[0], steps[-1] - future.config.state_gap_steps)):
            frame = Frame(stamp, "camera", shown.picture(index))
            future.step(frame)
            found = state.step(frame)
            assert isinstance(found, StatePrediction)
            seen = found
            future.step(seen.tokens)
    assert seen is not None
    return seen.tokens


def _another(seed: int, shown: Stage) -> Item:
    """The object that the wrong words name."""
    scene = shown.scene
    near = [item for item in scene.items[1:] if grip_m(scene, scene.plans[0].side, item) is not None]
    rest = near or list(scene.items[1:])
    return rest[int(np.random.default_rng([seed, 2]).integers(len(rest)))]


def metrics(answer: Answer) -> list[Metric]:
    """Figures of one scene; the model's are those with the right words."""
    truth, side = answer.paths["truth"][answer.side], answer.side
    steps = len(truth)
    held = np.repeat(answer.start[:, None], steps, axis=1)
    methods = {"model": answer.paths["right"], **{n: answer.paths[n] for n in ASKED[1:]}, "hold": held}
    found = []
    for horizon_s in HORIZONS_S:
        at = round(horizon_s / 2.0 * steps) - 1
        errors = {n: np.array([[np.linalg.norm(path[side, at] - truth[at]) * 1e3]]) for n, path in methods.items()}
        found.append(Metric(f"wrist_error@{horizon_s:.1f}s", "mm", "lower", errors))
    candidates = reachable(answer, side)
    if len(candidates) < 2:
        return found
    named = answer.shown.scene.items[0]
    hits = {name: picked(answer, path) is named for name, path in (methods | {"truth": answer.paths["truth"]}).items()}
    hits["hold"] = _nearest(answer.start[side], candidates) is named
    shares = {name: np.array([[float(hit)]]) for name, hit in hits.items()}
    shares["chance"] = np.array([[1 / len(candidates)]])
    found.append(Metric("picked", "share", "higher", shares))
    follows = {"model": np.array([[float(picked(answer, answer.paths["wrong"]) is answer.other)]])}
    return [*found, Metric("follows_wrong", "share", "higher", follows)]


def picked(answer: Answer, path: Double) -> Item | None:
    """The object that wrists (sides, F, 3) are heading for; None where the hand that moves can reach none."""
    moved = np.linalg.norm(path[:, -1] - answer.start, axis=-1)
    side = int(moved.argmax())
    return _nearest(path[side, -1], reachable(answer, side))


def reachable(answer: Answer, side: int) -> list[tuple[Item, Double]]:
    """Objects that a hand can reach, and where its wrist is then, (3,)."""
    scene = answer.shown.scene
    places = ((item, grip_m(scene, SIDES[side], item)) for item in scene.items)
    return [(item, place) for item, place in places if place is not None]


def _nearest(wrist: Double, candidates: list[tuple[Item, Double]]) -> Item | None:
    """Seen from above: by 2 s some hands have lifted what they took."""
    distances = [float(np.linalg.norm(wrist[:2] - place[:2])) for _, place in candidates]
    return candidates[int(np.argmin(distances))][0] if distances else None


def subtask_metrics(answers: Sequence[tuple[str, str] | None]) -> list[list[Metric]]:
    """Of each scene (said, true), whether it is right; none where the model does not say."""
    true = [answer[1] for answer in answers if answer is not None]
    common = max(sorted(set(true)), key=true.count, default="")
    found: list[list[Metric]] = []
    for answer in answers:
        if answer is None:
            found.append([])
            continue
        hits = {"model": answer[0] == answer[1], "most_frequent": common == answer[1]}
        shares = {name: np.array([[float(hit)]]) for name, hit in hits.items()}
        found.append([Metric("subtask", "share", "higher", shares)])
    return found
