"""The what-if page: choose hardware, policy, traffic and targets, and see cost, latency and the plan change."""

from octavo.simulator.studio.app import make_app
from octavo.simulator.studio.run import run_studio

__all__ = ["make_app", "run_studio"]
