"""How long a step takes: one protocol and three kinds of models."""

from octavo.simulator.latency.fit import Fit
from octavo.simulator.latency.model import LatencyModel, Line
from octavo.simulator.latency.roofline import Roofline
from octavo.simulator.latency.table import Table

__all__ = ["Fit", "LatencyModel", "Line", "Roofline", "Table"]
