"""Whether a score of the value model is the chance of being right."""

from __future__ import annotations

from octavo.simulator.report.blocks import Figure, table
from octavo.simulator.report.document import Evaluation
from octavo.simulator.report.figures.plot import COLOURS, axis, layout, trace
from octavo.simulator.report.numbers import Number


def reliability(evaluation: Evaluation, name: str) -> Figure | None:
    """What the value model said against how many were right, in groups of equal score."""
    bins = evaluation.reliability
    if not bins:
        return None
    most = max(b.count for b in bins)
    ideal = trace(
        *("scatter", "as it should be"),
        mode="lines",
        x=[0, 100],
        y=[0, 100],
        line={"color": "var(--soft)", "dash": "dot", "width": 1.3},
        hoverinfo="skip",
    )
    found = trace(
        *("scatter", "value model"),
        mode="lines+markers",
        x=[100 * b.said for b in bins],
        y=[100 * b.right for b in bins],
        text=[f"{b.count} candidates" for b in bins],
        line={"color": COLOURS[0], "width": 1.4},
        marker={"color": COLOURS[0], "size": [7 + 15 * (b.count / most) ** 0.5 for b in bins], "opacity": 0.9},
        hovertemplate="said %{x:.0f} %, right %{y:.0f} %<br>%{text}<extra></extra>",
    )
    span = {"range": [-3, 103], "dtick": 25}
    rows = [(Number(b.said, "share"), Number(b.right, "share"), Number(b.count, "candidates")) for b in bins]
    return Figure(
        name=f"reliability-{name}",
        title="Does the value model mean what it says?",
        caption="Candidates grouped by score; a larger mark is more candidates. On the dotted line, a score is the "
        "chance of being right; below it, the value model is too sure.",
        data=(ideal, found),
        layout=layout(axis("score of the value model (%)", **span), axis("right candidates (%)", **span)),
        height=400,
        table=table("Reliability", ("score", "right", "of"), rows),
    )
