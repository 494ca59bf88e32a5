"""A self-contained HTML page: figures as a table, pictures embedded, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray

MIN_WIDTH_PX = 480
FIGURE = Markup('<figure><img alt="{caption}" src="{url}"><figcaption>{caption}</figcaption></figure>')

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530 }
 h1 { font-size: 1.6rem } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d5dbe1 }
 table { border-collapse: collapse; margin: .8rem 0 } td, th { padding: .25rem .7rem; text-align: right }
 th { border-bottom: 2px solid #98a4b0 } td:first-child, th:first-child { text-align: left }
 tr:nth-child(even) td { background: #f4f6f8 } .good { color: #0a7a3b } .bad { color: #b3261e } .flat { color: #8a6d00 }
 summary { cursor: pointer; color: #44505c }
 figure { display: inline-block; margin: .6rem 1rem .6rem 0; vertical-align: top }
 img { image-rendering: pixelated; max-width: 100% } figcaption { color: #55606c; font-size: .9rem }
</style></head><body>
<h1>{{ title }}</h1>
{% if lead %}<p>{{ lead }}</p>{% endif %}
{% for name, capability in capabilities.items() %}<h2>{{ name }}</h2>
{{ figures(name) }}
<details{% if capability.metrics | length <= 12 %} open{% endif %}>
<summary>{{ capability.metrics | length }} figures from {{ capability.predictions }} predictions</summary><table>
<tr><th>metric</th><th>model</th><th>best baseline</th><th></th><th>gain</th><th>95 % interval</th><th>n</th></tr>
{% for key, m in capability.metrics.items() %}<tr><td>{{ key }}</td><td>{{ num(m.value) }} {{ m.unit }}</td>
{% if m.best_baseline %}<td>{{ num(m.baselines[m.best_baseline]) }}</td><td>{{ m.best_baseline }}</td>
<td class="{{ verdict(m) }}">{{ num(m.gain) }}</td><td>{{ num(m.gain_ci95[0]) }} … {{ num(m.gain_ci95[1]) }}</td>
{% else %}<td></td><td></td><td></td><td></td>{% endif %}<td>{{ m.n }}</td></tr>{% endfor %}</table></details>
{% endfor %}
{% if skipped %}<h2>Not scored</h2><ul>{% for why in skipped.values() %}<li>{{ why }}</li>{% endfor %}</ul>{% endif %}
{% for table in tables %}<h2>{{ table.title }}</h2>
<table><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>{% endfor %}
{{ figures("") }}
</body></html>
"""


def write_report(
    path: Path,
    title: str,
    report: dict[str, Any],
    pictures: dict[str, NDArray[np.uint8]],
    *,
    lead: str = "",
    tables: list[dict[str, Any]] | None = None,
) -> None:
    """Write the page.

    Args:
        report: as `metrics.json`.
        pictures: "capability: caption" → (H, W, 3) uint8, or (T, H, W, 3) for a strip shown left to right.
        tables: further tables, each {"title", "head", "rows"}, shown after the capabilities.
    """
    names = set(report.get("capabilities", {}))

    def figures(name: str) -> Markup:
        shown = []
        for key, image in pictures.items():
            owner, _, caption = key.partition(": ")
            if owner == name or (not name and owner not in names):
                shown.append(FIGURE.format(url=data_url(image), caption=caption or key))
        return Markup("\n").join(shown)

    environment = Environment(autoescape=True)
    page = environment.from_string(PAGE).render(
        title=title,
        lead=lead,
        tables=tables or [],
        capabilities=report.get("capabilities", {}),
        skipped=report.get("skipped", {}),
        figures=figures,
        num=_number,
        verdict=_verdict,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def data_url(image: NDArray[np.uint8]) -> str:
    """PNG data URL of an image or of a strip; small images are enlarged by whole pixels so that a person sees them."""
    if image.ndim == 4:
        image = np.concatenate(list(image), axis=1)
    factor = max(1, round(MIN_WIDTH_PX / image.shape[1]))
    image = np.repeat(np.repeat(image, factor, 0), factor, 1)
    _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _verdict(metric: dict[str, Any]) -> str:
    low, high = (edge or 0.0 for edge in metric["gain_ci95"])
    return "good" if low > 0 else "bad" if high < 0 else "flat"
