"""Pictures of a state bundle's card, from recordings that it was not trained on.

    python tools/state_pictures.py models/state-lite --data 'DATASET?episodes=36-43&licence=MIT' \
        --data 'sim:tabletop?seeds=300000-300003'

Per source: images beside what their two tokens, and principal components with as many numbers, give back; states on the
straight line between two images beside what the camera saw; and the motion of one episode carried into another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from add_to_card import add_section
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.state.baselines import Baselines, load_baselines
from wm_ros.state.capability import StateCapability
from wm_ros.state.motion import interpolate, transfer
from wm_ros.types import Frame

Images = NDArray[np.uint8]
GAP = 16  # frames between the ends of an interpolation or of a motion
COLUMNS = 6


def main() -> None:
    """Write reconstruction.jpg, interpolation.jpg and transfer.jpg beside the card and name them in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", action="append", required=True)
    given = parser.parse_args()
    baselines, state = load_baselines(given.bundle), StateCapability.from_bundle(given.bundle)
    strips: dict[str, list[Images]] = {"reconstruction": [], "interpolation": [], "transfer": []}
    for source in given.data:
        recordings = [_frames(episode, state) for episode in episodes(source)]
        states = [state.tokenize(frames) for frames in recordings]
        strips["reconstruction"].append(_reconstruction(baselines, recordings, states))
        strips["interpolation"].append(_interpolation(baselines, recordings[0], states[0]))
        strips["transfer"].append(_transfer(baselines, recordings, states))
    for name, parts in strips.items():
        picture = np.concatenate(parts)
        cv2.imwrite(
            str(given.bundle / f"{name}.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92]
        )
    add_section(given.bundle / "CARD.md", "Pictures", TEXT)


TEXT = """Recordings that it was not trained on: a real humanoid, then simulated scenes.

Rows: image, from two tokens, from principal components with as many numbers.

![reconstruction](reconstruction.jpg)

Rows: what the camera saw over about a second, and images drawn from the straight line between the first and the last
state.

![interpolation](interpolation.jpg)

Rows: a motion as seen in one episode, and an image of another episode with that motion added to its state, step by
step.

![transfer](transfer.jpg)
"""


def _frames(episode: Episode, state: StateCapability) -> Images:
    return np.stack([state.preprocess(s.rgb) for s in episode.samples() if isinstance(s, Frame)])


def _row(images: Images) -> Images:
    return np.concatenate(list(images), axis=1)


def _reconstruction(baselines: Baselines, recordings: list[Images], states: list[NDArray[np.float32]]) -> Images:
    chosen = [(n % len(recordings), (n + 1) / (COLUMNS + 1)) for n in range(COLUMNS)]
    images = np.stack([recordings[n][round(share * (len(recordings[n]) - 1))] for n, share in chosen])
    tokens = np.stack([states[n][round(share * (len(states[n]) - 1))] for n, share in chosen])
    return np.concatenate([_row(images), _row(baselines.render(tokens)), _row(baselines.pca_images(images))])


def _largest_motion(states: NDArray[np.float32]) -> int:
    return int(np.argmax(np.square(states[GAP:] - states[:-GAP]).sum((1, 2))))


def _interpolation(baselines: Baselines, frames: Images, states: NDArray[np.float32]) -> Images:
    start, shares = _largest_motion(states), np.linspace(0.0, 1.0, COLUMNS)
    seen = frames[[start + round(share * GAP) for share in shares]]
    line = np.stack([interpolate(states[start], states[start + GAP], float(share)) for share in shares])
    return np.concatenate([_row(seen), _row(baselines.render(line))])


def _transfer(baselines: Baselines, recordings: list[Images], states: list[NDArray[np.float32]]) -> Images:
    one, other = 0, len(recordings) - 1
    start = _largest_motion(states[one])
    # the other scene begins where its state is nearest to that of the first one
    near = int(np.argmin(np.square(states[other] - states[one][start]).sum((1, 2))))
    steps = [round(share * GAP) for share in np.linspace(0.0, 1.0, COLUMNS)]
    moved = np.stack([transfer(states[one][start], states[one][start + step], states[other][near]) for step in steps])
    return np.concatenate([_row(recordings[one][[start + step for step in steps]]), _row(baselines.render(moved))])


if __name__ == "__main__":
    main()
