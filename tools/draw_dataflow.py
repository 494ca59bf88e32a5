"""Draw docs/dataflow.svg from the table of topics, so that the picture cannot fall behind the code."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from wm_ros import topics

WIDTH, ROW, TOP = 1000, 19, 46
SENSOR_X, NODE_X, OUT_X = 20, 400, 760
SENSORS = (topics.POINTS, topics.ODOM, topics.IMAGE, topics.JOINT_STATES, topics.INSTRUCTION, topics.QUERY)
COLOURS = {
    "lidar_encoder": "#2f6f9f",
    "state_tokenizer": "#2d7d5a",
    "future_predictor": "#8a5a17",
    "policy": "#8c3b63",
    "monitor": "#555f6b",
}
SAID = {
    "lidar_encoder": "sweep → BEV, occupancy to come",
    "state_tokenizer": "image → two tokens, motion",
    "future_predictor": "hands to come, frames to come",
    "policy": "action chunk",
    "monitor": "predictions against what came",
}


def shown(node: str) -> list[str]:
    """Names of the outputs of a node, numbered families in one line."""
    names: list[str] = []
    for topic in topics.OUTPUTS[node]:
        stem, mark, _ = topic.name.partition("t_")
        name = f"{stem}t_<ms>" if mark else topic.name.replace("_left", "_<side>").replace("_right", "_<side>")
        if name not in names:
            names.append(name)
    return names


def box(x: float, y: float, width: float, height: float, title: str, note: str, colour: str) -> str:
    """A rounded box with a title and a line of explanation."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}" fill-opacity=".12" '
        f'stroke="{colour}"/><text x="{x + 12}" y="{y + 20}" font-weight="600" fill="{colour}">{escape(title)}</text>'
        f'<text x="{x + 12}" y="{y + 38}" font-size="12" fill="#44505c">{escape(note)}</text>'
    )


def arrow(x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "") -> str:
    """A curve with a head at its end."""
    middle = (x0 + x1) / 2
    return (
        f'<path d="M{x0} {y0} C{middle} {y0} {middle} {y1} {x1} {y1}" fill="none" stroke="{colour}" '
        f'stroke-width="1.4" stroke-dasharray="{dash}" marker-end="url(#head)"/>'
    )


def main() -> None:
    """Write the picture."""
    parts, node_y, y = [], {}, float(TOP)
    for node in topics.NODES:
        height = max(56, ROW * len(shown(node)) + 12)
        node_y[node] = y + 28
        parts.append(box(NODE_X, y, 250, 56, node, SAID[node], COLOURS[node]))
        for index, name in enumerate(shown(node)):
            line = y + 14 + ROW * index
            parts.append(f'<text x="{OUT_X + 16}" y="{line + 4}" font-size="13" fill="#26313c">{escape(name)}</text>')
            parts.append(arrow(NODE_X + 250, y + 28, OUT_X + 10, line, COLOURS[node]))
        y += height + 26
    step = (y - TOP - 26) / len(SENSORS)
    for index, topic in enumerate(SENSORS):
        at = TOP + step * index
        parts.append(box(SENSOR_X, at, 200, 50, topic.name, topic.type.replace("/msg/", "/"), "#3b4652"))
        for node in topics.NODES:
            if topic in topics.INPUTS[node] and node != "monitor":
                parts.append(arrow(SENSOR_X + 200, at + 25, NODE_X - 6, node_y[node], "#9aa5b1"))
    for bulge, source, target in (
        (26, "state_tokenizer", "future_predictor"),
        (44, "state_tokenizer", "policy"),
        (62, "lidar_encoder", "policy"),
    ):
        x, y0, y1 = NODE_X + 250, node_y[source] + 16, node_y[target] + bulge / 4 - 12
        parts.append(
            f'<path d="M{x} {y0} C{x + bulge} {y0} {x + bulge} {y0} {x + bulge} {y0 + 20} L{x + bulge} {y1 - 20} '
            f'C{x + bulge} {y1} {x + bulge} {y1} {x + 3} {y1}" fill="none" stroke="{COLOURS[source]}" '
            'stroke-width="1.4" stroke-dasharray="5 3" marker-end="url(#head)"/>'
        )
    parts.append(
        f'<text x="{SENSOR_X}" y="{y + 6}" font-size="12" fill="#44505c">Dashed: tokens that one node gives another. '
        "The monitor hears the world and every prediction. All nodes publish /diagnostics.</text>"
    )
    Path("docs/dataflow.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 24:.0f}" font-family="sans-serif" '
        'font-size="14"><defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#7b8794"/></marker></defs>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
