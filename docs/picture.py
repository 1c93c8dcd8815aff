"""Draws docs/picture.svg, the README's picture, from what a demo left: `python docs/picture.py octavo-demo`."""

from __future__ import annotations

import json
import sys
from html import escape
from math import log10
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 430, 62, 24, 46, 52
CHEAPEST, DEAREST, WORST = 0.00009, 0.004, 0.5
COLOURS = {1: "#009E73", 16: "#0072B2"}
# What is written beside a point, on which side, and how many pixels lower.
LABELS = {
    "single": ("best expert, once", "start", 4),
    "best_of_n": ("best expert x 16, value model", "end", 4),
    "majority": ("8 x 2, majority", "start", 10),
    "mean_logprob": ("8 x 2, log-probability", "end", 9),
    "ensemble": ("8 x 2, value model", "start", 7),
    "weighted_vote": ("8 x 2, weighted vote", "start", 7),
    "early_exit": ("8 x 2, stop when sure", "end", 4),
    "cascade": ("one first, 8 x 2 if unsure", "end", 23),
    "generalist_single": ("generalist, once", "start", 4),
    "generalist_best_of_n": ("generalist x 16, value model", "end", -4),
}


def x_of(usd: float) -> float:
    share = (log10(usd) - log10(CHEAPEST)) / (log10(DEAREST) - log10(CHEAPEST))
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def y_of(right: float) -> float:
    return TOP + (1 - (right - WORST) / (1 - WORST)) * (HEIGHT - TOP - BOTTOM)


def text(x: float, y: float, words: str, size: int = 12, anchor: str = "start", colour: str = "#333") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def axes() -> list[str]:
    drawn = []
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        drawn += [line(LEFT, y_of(share), WIDTH - RIGHT, y_of(share), "#e4e4e4")]
        drawn += [text(LEFT - 8, y_of(share) + 4, f"{share:.0%}", anchor="end")]
    for usd in (0.0001, 0.0002, 0.0005, 0.001, 0.002):
        drawn += [line(x_of(usd), TOP, x_of(usd), HEIGHT - BOTTOM, "#e4e4e4")]
        drawn += [text(x_of(usd), HEIGHT - BOTTOM + 18, f"${usd:g}", anchor="middle")]
    drawn += [text(LEFT, 22, "right answers, measured on 1,000 held-out tasks (95 % intervals)", 14)]
    drawn += [text(WIDTH - RIGHT, HEIGHT - 10, "simulated $ per query, 8B experts on rented L40S", 14, "end")]
    return drawn


def point(row: dict, usd: float) -> list[str]:
    accuracy, x = row["accuracy"], x_of(usd)
    colour = COLOURS[1] if row["inferences_per_query"] <= 1 else COLOURS[16]
    y = y_of(accuracy["value"])
    words, anchor, lower = LABELS[row["key"]]
    label = text(x - 9 if anchor == "end" else x + 9, y + lower, words, anchor=anchor, colour=colour)
    whisker = line(x, y_of(accuracy["low"]), x, y_of(accuracy["high"]), colour, 1.5)
    return [whisker, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>', label]


def picture(folder: Path) -> str:
    rows = {row["key"]: row for row in json.loads((folder / "eval/eval.json").read_text())["policies"]}
    lines = {each["key"]: each for each in json.loads((folder / "simulate/policies.json").read_text())["lines"]}
    lines["ensemble"] = lines.pop("policies")
    usd = {key: each["metrics"]["usd_per_query"]["value"] for key, each in lines.items() if not each["overloaded"]}
    points = [part for key in LABELS if key in rows and key in usd for part in point(rows[key], usd[key])]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif">'
    return (
        "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>', *axes(), *points, "</svg>"]) + "\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "picture.svg").write_text(picture(Path(sys.argv[1])))
