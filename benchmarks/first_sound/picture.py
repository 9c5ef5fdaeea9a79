"""Draws ``docs/pictures/first-sound.svg`` from the figures that ``make trace`` has kept beside it.

$ python -m benchmarks.first_sound.picture    # after "make trace", or after a change to the drawing
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

PICTURES: Final = Path(__file__).parents[2] / "docs" / "pictures"
FIGURES: Final = PICTURES / "first-sound.json"
PICTURE: Final = PICTURES / "first-sound.svg"
NAMES: Final = {
    "floor: frames from memory": ("Floor", "a stock agent that plays frames from memory"),
    "stock agent: model, then voice": ("The usual way", "a stock agent asks its model, then its voice"),
    "first meeting": ("First meeting", "a phrase, spoken once for everybody"),
    "dropped call": ("Dropped call, 5 s later", "the same"),
    "a minute later": ("A minute later", "a greeting prepared when the last call ended"),
    "half an hour later": ("Half an hour later", "the same, after the cached plan has expired"),
    "a week later": ("A week later", "the same; only the speech is still cached"),
    "store silent": ("Store silent", "Supabase takes the request and never answers"),
}
"""What each row is called, and what is audible in it."""
OTHERS: Final = ("floor: frames from memory", "stock agent: model, then voice")
STEPS: Final = {
    "room_connected": "connected",
    "publisher_connected": "publishes",
    "subscribed": "subscribed to",
    "first_sound": "heard",
}
LEFT, RIGHT, TOP, ROW, WIDTH = 340, 90, 76, 46, 980
STYLE: Final = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2933; }
.title { font-size: 17px; font-weight: 600; } .what { font-size: 12px; fill: #61707f; } .time { font-weight: 600; }
.axis { font-size: 11px; fill: #61707f; } .grid { stroke: #d9dfe5; stroke-width: 1; } .back { fill: #ffffff; }
.ours { fill: #0f8a6d; } .other { fill: #9aa7b3; } .step { fill: #ffffff; fill-opacity: .75; }
.range { stroke: #1f2933; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .what, .axis { fill: #9aa7b3; } .grid { stroke: #2b3440; } .back { fill: #0d1117; }
.range { stroke: #e6edf3; } .ours { fill: #23b892; } .other { fill: #66727e; } }
"""


def draw(figures: dict[str, Any]) -> str:
    """The picture: one bar a row, from the agent's arrival in the room to the first sound.

    Args:
        figures: what ``make trace`` has measured, as :func:`keep` writes it.
    """
    rows = [row for row in figures["rows"] if row["name"] in NAMES]
    end = max(row["greatest_ms"] for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / end
    height = TOP + ROW * len(rows) + 66
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title(figures))}">',
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="24" y="34">{escape(title(figures))}</text>',
    ]
    bottom = TOP + ROW * len(rows)
    for at in range(0, int(end) + 1, 200):
        x = LEFT + at * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP - 12}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{at} ms</text>')
    for number, row in enumerate(rows):
        parts.extend(_bar(row, TOP + number * ROW, scale))
    parts.append(
        f'<text class="what" x="24" y="{height - 16}">Bar: median of {figures["rounds"]}; line: least to greatest. '
        f"Dots: {', '.join(list(STEPS.values())[:-1])}. Model: first token after {figures['first_token_ms']} ms; "
        f"voice: first byte after {figures['first_byte_ms']} ms.</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


def title(figures: dict[str, Any]) -> str:
    """What the picture says, in one line."""
    times = {row["name"]: row["median_ms"] for row in figures["rows"]}
    usual, ours = times["stock agent: model, then voice"], times["a week later"]
    return f"Agent's arrival to first sound: {usual:,} ms the usual way, {ours:,} ms for a returning caller"


def _bar(row: dict[str, Any], top: float, scale: float) -> list[str]:
    name, what = NAMES[row["name"]]
    kind = "other" if row["name"] in OTHERS else "ours"
    middle, right = top + 13, LEFT + max(row["median_ms"], row["greatest_ms"]) * scale
    parts = [
        f'<text x="24" y="{top + 11}">{escape(name)}</text>',
        f'<text class="what" x="24" y="{top + 27}">{escape(what)}</text>',
        f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{row["median_ms"] * scale:.1f}" height="26" rx="4"/>',
        f'<line class="range" x1="{LEFT + row["least_ms"] * scale:.1f}" y1="{middle}" '
        f'x2="{LEFT + row["greatest_ms"] * scale:.1f}" y2="{middle}"/>',
        f'<text class="time" x="{right + 10:.1f}" y="{top + 18}">{row["median_ms"]:,} ms</text>',
    ]
    for step, at in row["steps_ms"].items():
        if step in STEPS and step != "first_sound":
            parts.append(f'<circle class="step" cx="{LEFT + at * scale:.1f}" cy="{middle}" r="3.5"/>')
    return parts


def main() -> int:
    """Draw it anew."""
    PICTURE.write_text(draw(json.loads(FIGURES.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
