"""A chart of ratios as SVG, written by hand: a bar for each cell, and a line where PgBouncer stands."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

ROW, LEFT, WIDTH, TOP = 22, 190, 560, 56
_BETTER: Final = "#2f7d4f"
_WORSE: Final = "#b5552b"


def svg(title: str, bars: Sequence[tuple[str, float, float, float]]) -> str:
    """`bars`: name, median, least and most of a ratio; below 1 is better."""
    scale = WIDTH / max([1.25, *(most for *_, most in bars)])
    height = TOP + ROW * len(bars) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        '<text x="10" y="38" fill="#555">CPU of the pooler for each transaction, as a part of PgBouncer\'s in the same '
        "run; the thin line is the spread of the repetitions</text>",
    ]
    for number, (name, median, least, most) in enumerate(bars):
        y = TOP + ROW * number
        colour = _BETTER if median <= 1 else _WORSE
        middle = y + ROW / 2 - 2
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{ROW - 6}" fill="{colour}"/>',
            f'<line x1="{LEFT + least * scale:.1f}" x2="{LEFT + most * scale:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" '
            'stroke="#222"/>',
            f'<text x="{LEFT + max(median, most) * scale + 6:.1f}" y="{y + 13}">{median:.2f}</text>',
        ]
    one, bottom = LEFT + scale, TOP + ROW * len(bars)
    parts += [
        f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="#222" stroke-dasharray="4 3"/>',
        f'<text x="{one:.1f}" y="{bottom + 16}" text-anchor="middle">PgBouncer = 1</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
