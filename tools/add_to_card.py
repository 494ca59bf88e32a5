"""Put what an experiment printed into a bundle's card, so that no figure is typed by hand.

    python tools/add_to_card.py models/lidar-lite 'Does pre-training help?' runs/probe/probe.md \
        --command 'wm probe …' --picture runs/probe/probe.png

A section of that title is replaced. The picture is copied beside the card.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def add_section(card: Path, title: str, text: str) -> None:
    """Replace the section `title` of a card, or append it."""
    parts = card.read_text().rstrip().split("\n## ")
    kept = [part for part in parts if part.split("\n", 1)[0] != title]
    card.write_text("\n## ".join([*(part.rstrip() + "\n" for part in kept), f"{title}\n\n{text.strip()}\n"]))


def main() -> None:
    """Read the experiment's text and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("title")
    parser.add_argument("text", type=Path)
    parser.add_argument("--command", default="", help="that printed it")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    text = given.text.read_text()
    if given.command:
        text = f"`{given.command}`\n\n{text}"
    if given.picture:
        target = given.bundle / given.picture.name
        shutil.copyfile(given.picture, target)
        text += f"\n![{given.title}]({target.name})\n"
    add_section(given.bundle / "CARD.md", given.title, text)


if __name__ == "__main__":
    main()
