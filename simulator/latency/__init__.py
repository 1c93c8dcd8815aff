"""How long a step takes: one protocol and four kinds of models."""

from octavo.simulator.latency.model import Band, LatencyModel, Line
from octavo.simulator.latency.physics import Coefficients, Physics
from octavo.simulator.latency.roofline import roofline
from octavo.simulator.latency.silicon import Silicon
from octavo.simulator.latency.table import Table

__all__ = ["Band", "Coefficients", "LatencyModel", "Line", "Physics", "Silicon", "Table", "roofline"]
