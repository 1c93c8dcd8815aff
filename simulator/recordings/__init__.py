"""What a real server did with a load, request by request, from the files of the tools that record it."""

from octavo.simulator.recordings.read import FORMATS, read_served
from octavo.simulator.recordings.request import Engine, Request, Served
from octavo.simulator.recordings.simulate import changes, doubts, simulate_served

__all__ = ["FORMATS", "Engine", "Request", "Served", "changes", "doubts", "read_served", "simulate_served"]
