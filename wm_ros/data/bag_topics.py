"""Which topic of a bag is which topic of the stack."""

from __future__ import annotations

from wm_ros import topics as table
from wm_ros.errors import BagError
from wm_ros.topics import Topic

READABLE: tuple[Topic, ...] = (
    table.POINTS,
    table.ODOM,
    table.IMAGE,
    table.IMAGE_COMPRESSED,
    table.WRIST_IMAGE,
    table.JOINT_STATES,
    table.JOINT_COMMANDS,
    table.INSTRUCTION,
    table.BOXES,
    *table.HANDS,
    *table.HAND_POSES,
    *table.HAND_BOXES,
    table.STATE_TOKENS,
    table.BEV_TOKENS,
)
"""Topics whose messages become samples."""

BY_TYPE: tuple[Topic, ...] = (table.POINTS, table.ODOM, table.IMAGE, table.IMAGE_COMPRESSED, table.JOINT_STATES)
"""Topics that a type alone can tell. (A String or a Path may be anything, so those go by name only.)"""

_OUTPUTS = tuple(t.name for outputs in table.OUTPUTS.values() for t in outputs)


def match_topics(bag: dict[str, str], remap: dict[str, str] | None = None) -> dict[str, Topic]:
    """Bag topic → topic of the stack, for those that become samples.

    In this order: `remap` (bag topic → name in `wm_ros.topics`); the same name; the same name in a namespace
    (`/robot/points`); the only topic of its type. What our own nodes publish is never taken for a sensor.

    Args:
        bag: topic name → type.

    Raises:
        BagError: `remap` names a topic that is not there, or gives it to one of another type.
    """
    found: dict[str, Topic] = {}
    free = {t.name: t for t in READABLE}
    names = {name.strip("/"): name for name in bag}
    for theirs, ours in (remap or {}).items():
        name, topic = names.get(theirs.strip("/")), free.get(ours.strip("/"))
        if name is None:
            raise BagError(f"topic '{theirs}' is not in the bag; it has {', '.join(sorted(bag)) or 'none'}")
        if topic is None:
            raise BagError(f"topic '{ours}' is none that samples come from; choose one of {', '.join(free)}")
        if bag[name] != topic.type:
            raise BagError(f"topic '{theirs}' has type {bag[name]}, '{ours}' takes {topic.type}")
        found[name] = free.pop(topic.name)

    def take(name: str, topic: Topic) -> None:
        found[name] = free.pop(topic.name)

    rest = {name: kind for name, kind in sorted(bag.items()) if name not in found}
    for bare, name in sorted(names.items()):
        if name in rest and bare in free and free[bare].type == rest[name]:
            take(name, free[bare])
    rest = {n: k for n, k in rest.items() if n not in found and not is_output(n)}
    for topic in list(free.values()):
        inside = [n for n, k in rest.items() if n.endswith("/" + topic.name) and k == topic.type and n not in found]
        if len(inside) == 1:
            take(inside[0], topic)
    for topic in BY_TYPE:
        alike = [n for n, k in rest.items() if k == topic.type and n not in found]
        if topic.name in free and len(alike) == 1 and not any(t.type == topic.type for t in found.values()):
            take(alike[0], topic)
    return found


def is_output(name: str) -> bool:
    """True for a topic that our own nodes publish, in any namespace."""
    return any(name.strip("/") == o or name.endswith("/" + o) for o in _OUTPUTS)
