"""The cluster on Ray Serve: a deployment per branch, with its replicas, and the front as the ingress.

`build` is what a Serve config file names as its import_path; `serve_on_ray` is `octavo serve --on ray`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from octavo.profiles.branch import BranchPlace
from octavo.profiles.errors import ConfigError, MachineError
from octavo.profiles.manifest import verify_bundle
from octavo.runtime.cluster.branch import Branch, Description, news_from
from octavo.runtime.cluster.errand import Errand, News
from octavo.runtime.cluster.front import Front
from octavo.runtime.cluster.layout import FrontPlace, even, named
from octavo.runtime.server.app import make_app
from octavo.runtime.server.journal import log, start_logging
from octavo.runtime.server.settings import ServerSettings, read_keys

APP = "octavo"
MANY = 10_000  # requests at once per replica: it is the front that counts and refuses, before anything is queued
POLL, TOLD = 0.5, 10.0  # seconds between two looks at branches that start, and between two lines about them
BUSY = 32.0  # errands at once, per replica, above which a branch that may grow gets another


class ClusterSettings(BaseModel):
    """What `build` takes: the bundle's folder (the same path on every node), its branches, the server's settings.

    Without `branches` everything is on one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    branches: tuple[BranchPlace, ...] = ()
    front: FrontPlace = FrontPlace()
    server: ServerSettings = Field(default_factory=ServerSettings)
    samples: int | None = Field(default=None, ge=1)
    min_candidates: int = Field(default=1, ge=1)
    placement: dict[str, Any] = Field(default={}, description="fields of octavo.runtime.place.Placement")


class BranchReplica:
    """A branch as Serve runs it."""

    def __init__(self, bundle: str, models: Sequence[str], placement: Mapping[str, Any]) -> None:
        self._branch = Branch(Path(bundle), models, **placement)

    async def describe(self) -> Description:
        return self._branch.describe()

    async def carry(self, errand: Errand) -> AsyncIterator[Sequence[News]]:
        async for batch in news_from(self._branch, errand):
            yield batch

    def check_health(self) -> None:
        """Serve replaces a replica that fails this."""
        if self._branch.dead:
            raise RuntimeError(f"dead: {', '.join(self._branch.dead)}")


class ServeCarrier:
    """Brings errands to the replicas of a branch: Serve picks the least busy one."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def describe(self) -> Description:
        found: Description = await self._handle.describe.remote()
        return found

    async def carry(self, errand: Errand) -> AsyncIterator[Sequence[News]]:
        response = self._handle.options(stream=True).carry.remote(errand)
        try:
            async for batch in response:
                yield batch
        finally:
            response.cancel()


@serve.ingress()
class Ingress:
    """The front behind HTTP; each replica has its own."""

    def __init__(self, settings: ClusterSettings, **branches: DeploymentHandle[Any]) -> None:
        start_logging()
        carriers = {name: ServeCarrier(handle) for name, handle in branches.items()}
        self._settings = settings.server
        self._front = Front.connect(
            settings.bundle, carriers, samples=settings.samples, min_candidates=settings.min_candidates
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return make_app(self._front, self._settings)

    async def __del__(self) -> None:
        await asyncio.to_thread(self._front.close)


def build(args: Mapping[str, Any]) -> Application:
    """The Serve application of `ClusterSettings` given as plain data; API keys may come in OCTAVO_API_KEYS instead.

    Raises ConfigError, BundleError.
    """
    given = dict(args)
    if keys := read_keys(None, os.environ.get("OCTAVO_API_KEYS")):
        given["server"] = {"api_keys": keys, **given.get("server", {})}
    try:
        settings = ClusterSettings.model_validate(given)
    except ValidationError as error:
        lines = [f"args: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    return application(settings)


def application(settings: ClusterSettings) -> Application:
    """A deployment per branch, and the ingress that knows them all."""
    manifest = verify_bundle(settings.bundle, hashes=False)
    branches = named(settings.branches or even(manifest, 1), manifest)
    bound = {place.name.replace("-", "_"): _deployed(place, settings) for place in branches}
    ingress = serve.deployment(Ingress).options(
        name="front",
        num_replicas=settings.front.replicas,
        max_ongoing_requests=MANY,
        graceful_shutdown_timeout_s=settings.server.drain,
        ray_actor_options={"num_cpus": settings.front.cpus, "resources": settings.front.resources},
    )
    app: Application = ingress.bind(settings, **bound)
    return app


def _deployed(place: BranchPlace, settings: ClusterSettings) -> Application:
    scaling: dict[str, Any] = {"num_replicas": place.replicas}
    if place.max_replicas is not None:
        bounds = {"min_replicas": place.replicas, "max_replicas": place.max_replicas}
        scaling = {"autoscaling_config": {**bounds, "target_ongoing_requests": BUSY}}
    devices = {"devices": [f"cuda:{index}" for index in range(place.gpus)]} if place.gpus else {}
    threads = {} if place.gpus else {"threads": max(1, int(place.cpus))}
    deployment = serve.deployment(BranchReplica).options(
        name=place.name,
        max_ongoing_requests=MANY,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        ray_actor_options={"num_cpus": place.cpus, "num_gpus": place.gpus, "resources": place.resources},
        **scaling,
    )
    bound: Application = deployment.bind(
        str(settings.bundle), place.models, {**threads, **devices, **settings.placement}
    )
    return bound


def _demand_room(settings: ClusterSettings, there: Mapping[str, float]) -> None:
    """Of a cluster that nobody will enlarge. Raises MachineError, where Serve would wait for ever."""
    needed = {"CPU": settings.front.cpus * settings.front.replicas}
    for place in settings.branches:
        each = {"CPU": place.cpus, "GPU": float(place.gpus), **place.resources}
        needed |= {kind: needed.get(kind, 0.0) + place.replicas * amount for kind, amount in each.items()}
    for kind, amount in needed.items():
        if amount > there.get(kind, 0.0):
            found = f"this machine has {there.get(kind, 0.0):g}"
            raise MachineError(f"serve: the branches ask for {amount:g} {kind}, {found}; take fewer, or --ray-address")


def _began(stop: Event) -> bool:
    """Wait till every branch runs; False where it was told to stop before. Raises MachineError where one cannot."""
    waited = 0.0
    while not stop.wait(POLL):
        waited += POLL
        found = serve.status().applications.get(APP)
        if found is None:
            continue
        if found.status == "RUNNING":
            return True
        if found.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise MachineError(f"serve: the branches did not start: {_last_line(found.message)}")
        if waited % TOLD < POLL:
            late = [name for name, each in found.deployments.items() if each.status != "HEALTHY"]
            log("waiting", seconds=round(waited), branches=sorted(late))
    return False


def _last_line(message: str) -> str:
    """What a replica's traceback comes down to."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "Ray says no reason"


def serve_on_ray(settings: ClusterSettings, address: str | None) -> None:
    """Serve on the Ray cluster at `address` (None: one of this machine's own) until SIGTERM or SIGINT.

    Raises MachineError where Ray cannot be reached, or the cluster has no room for the branches.
    """
    start_logging()
    if settings.server.port == 0:
        raise ConfigError("serve: --port 0 is not for --on ray: every node's proxy listens on the same port")
    try:
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        raise MachineError(f"serve: no Ray cluster at {address}: {error}") from None
    stop = Event()
    before = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        server, app = settings.server, application(settings)
        if address is None:
            _demand_room(settings, ray.cluster_resources())
        serve.start(http_options={"host": server.host, "port": server.port})
        target = serve.RunTarget(app, name=APP, route_prefix="/")
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        if _began(stop):
            log("listening", host=server.host, port=server.port, branches=[place.name for place in settings.branches])
            stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
        for each, handler in before.items():
            signal.signal(each, handler)
        log("stopped")
