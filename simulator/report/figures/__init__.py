"""The report's figures: plotly data in the page's own colours, each with its words and its table."""

from octavo.simulator.report.figures.accuracy import accuracy_against_cost
from octavo.simulator.report.figures.cost import costs
from octavo.simulator.report.figures.latency import compared, latencies
from octavo.simulator.report.figures.plan import tornado, undominated
from octavo.simulator.report.figures.reliability import reliability
from octavo.simulator.report.figures.steps import step_times
from octavo.simulator.report.figures.timeline import timeline

__all__ = [
    "accuracy_against_cost",
    "compared",
    "costs",
    "latencies",
    "reliability",
    "step_times",
    "timeline",
    "tornado",
    "undominated",
]
