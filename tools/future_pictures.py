"""Strips of a future bundle's card: frames that came above frames that were predicted, from recordings not trained on.

    python tools/future_pictures.py models/future-lite --data 'DATASET?episodes=36-43&licence=MIT' \
        --data 'sim:tabletop?seeds=300000-300007'

Of each source the best, the median and the worst episode by the mean PSNR of the predicted frames; of each of them the
moment after which the image changes most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from add_to_card import add_section
from numpy.typing import NDArray

from wm_ros.data.sources import Episode, episodes
from wm_ros.evaluation.future import FutureScorer
from wm_ros.evaluation.replay import Pipeline
from wm_ros.paths import bundle_path
from wm_ros.types import FuturePrediction

WIDER = 2  # a strip is shown at twice the size of its frames


def main() -> None:
    """Write frames.jpg beside the card and name it there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", action="append", required=True)
    given = parser.parse_args()
    rows, told = [], []
    for source in given.data:
        found = sorted((painted(episode, given.bundle) for episode in episodes(source)), key=lambda pair: pair[0])
        for name, (decibel, strip) in zip(
            ("worst", "median", "best"), (found[0], found[len(found) // 2], found[-1]), strict=True
        ):
            rows.append(cv2.resize(strip, None, fx=WIDER, fy=WIDER, interpolation=cv2.INTER_LINEAR))
            told.append(f"{name} of `{source.rsplit('/', 1)[-1]}`, {decibel:.1f} dB")
    picture = np.concatenate(rows)
    cv2.imwrite(str(given.bundle / "frames.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    text = "Each pair of rows: now and what came after 0.33, 0.67 and 1 s; below it now and what was predicted.\n"
    text += "From the top, with the mean PSNR of the episode's predicted frames: " + "; ".join(told)
    text += ".\n\n![frames](frames.jpg)"
    add_section(given.bundle / "CARD.md", "Frames", text)


def painted(episode: Episode, bundle: Path) -> tuple[float, NDArray[np.uint8]]:
    """Mean PSNR (dB) of an episode's predicted frames and the strip of the moment after which most changes."""
    scorer = FutureScorer(bundle)
    pipeline = Pipeline(["state", "future"], {"state": bundle_path("state-lite"), "future": bundle})
    for sample in episode.samples():
        for heard, name, prediction in pipeline.step(sample):
            if prediction is None:
                scorer.observe(heard)
            elif isinstance(prediction, FuturePrediction) and name == "future":
                scorer.predict(prediction)
    errors = [
        np.square((shown.astype(np.float32) - seen) / 255).mean()
        for one in scorer.paints.kept
        for shown, seen in ((one.shown[index], seen) for index, seen in one.seen.items())
    ]
    decibel = float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))
    return decibel, next(iter(scorer.paints.pictures().values()))


if __name__ == "__main__":
    main()
