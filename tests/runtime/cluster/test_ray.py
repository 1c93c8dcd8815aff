"""A real Ray cluster, several nodes in one machine: the ensemble answers over HTTP, and outlives a node's loss."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs octavo[cluster]")
pytestmark = pytest.mark.slow

ADDRESS = "http://127.0.0.1:18431"
PLACEMENT = {"max_rows": 8, "context": 64}
SOUTH = {"num_cpus": 1, "resources": {"south": 1}}
BRANCHES = [
    {"name": "north", "models": ["expert-0", "value"], "resources": {"north": 1}},
    {"name": "south", "models": ["expert-1"], "resources": {"south": 1}},
]


@pytest.fixture(scope="module")
def nodes(bundle: Path) -> Iterator[Any]:
    """A head with room for one branch, and a node that can hold the other."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from octavo.runtime.cluster.deploy import build

    head = {"num_cpus": 2, "resources": {"north": 2}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(**SOUTH)
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": 18431})
    args = {"bundle": str(bundle), "branches": BRANCHES, "placement": PLACEMENT, "min_candidates": 2}
    args["front"] = {"resources": {"north": 1}}
    serve.run(build(args), name="octavo", route_prefix="/")
    try:
        yield cluster, node
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def ask(**fields: Any) -> dict[str, Any]:
    body = {"model": "octavo", "prompt": "what is 6 x 7", "max_tokens": 12, "seed": 5, **fields}
    request = urllib.request.Request(
        f"{ADDRESS}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as error:
        answer = {"status": error.code, "said": error.read().decode()}
    return answer


def until(degraded: bool, **fields: Any) -> dict[str, Any]:
    """Ask again and again, and be answered each time, until an answer is so."""
    end = monotonic() + 90
    while (answer := ask(**fields)).get("octavo", {}).get("degraded") is not degraded:
        assert "choices" in answer, answer
        assert monotonic() < end
        sleep(0.05)
    return answer


def test_a_cluster_answers_as_one_machine_and_outlives_a_node(bundle: Path, nodes: Any) -> None:
    from octavo.runtime.local import Octavo

    cluster, node = nodes
    with Octavo.load(bundle, **PLACEMENT) as octavo:  # type: ignore[arg-type]
        here = octavo.ask("what is 6 x 7", max_new_tokens=12, seed=5)
    there = ask()
    assert there["choices"][0]["text"] == here.text
    assert there["octavo"]["candidates"] == len(here.candidates) == 4
    assert not there["octavo"]["degraded"]

    # A node goes while queries are under way: each is answered, and soon by those alone who are left.
    answers: list[dict[str, Any]] = []
    asking = [Thread(target=lambda: answers.append(until(degraded=True, max_tokens=40))) for _ in range(4)]
    for thread in asking:
        thread.start()
    cluster.remove_node(node, allow_graceful=False)
    for thread in asking:
        thread.join()
    assert len(answers) == 4
    left = ask()
    assert left["octavo"]["degraded"]
    assert (left["octavo"]["candidates"], left["octavo"]["chosen_expert"]) == (2, "expert-0")

    # Another node comes, and the lost branch is placed there.
    cluster.add_node(**SOUTH)
    assert until(degraded=False)["choices"][0]["text"] == here.text


def test_a_machine_without_room_for_the_branches_is_refused_rather_than_waited_for(bundle: Path) -> None:
    from octavo.profiles.errors import MachineError
    from octavo.runtime.cluster.deploy import ClusterSettings, _demand_room

    settings = ClusterSettings.model_validate({"bundle": bundle, "branches": BRANCHES})
    room = {"CPU": 2.0, "north": 1.0, "south": 1.0}
    _demand_room(settings, room)
    for kind in room:
        with pytest.raises(MachineError, match=f"ask for [12] {kind}, this machine has 0"):
            _demand_room(settings, room | {kind: 0.0})
