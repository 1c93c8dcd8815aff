"""Everything under fire, in order, with one table at the end: `python tests/fire/all.py BUNDLE [--minutes 60]`.

The contract needs schemathesis beside octavo; `--contract PYTHON` names an environment that has both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serving import MISSED, pinning

HERE = Path(__file__).parent
CASES, SCHEDULES = 10_500, 1_000
TESTS = (
    "tests/runtime/server/test_under_fire.py",
    "tests/runtime/server/test_refusals.py",
    "tests/exporters/test_bundle.py",
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float, default=60, help="of the soak")
    parser.add_argument("--contract", metavar="PYTHON")
    pinning(parser)
    given = parser.parse_args(arguments)
    cores = {"--core": given.core, "--client-core": given.client_core}
    pins = [word for name, core in cores.items() if core is not None for word in (name, str(core))]
    python, pytest = sys.executable, (sys.executable, "-m", "pytest", "-q")
    pieces = {
        f"{SCHEDULES} schedules of faults": (*pytest, "tests/laws/test_faults.py"),
        "faults and bad input": (*pytest, *TESTS),
        "drain and soak": (python, str(HERE / "soak.py"), given.bundle, "--minutes", str(given.minutes), *pins),
        "overload, recovery, idle connections": (python, str(HERE / "load.py"), given.bundle, *pins),
        "gateway": (python, str(HERE / "gateway.py"), given.bundle, *pins),
    }
    if given.contract:
        pieces["contract"] = (given.contract, str(HERE / "contract.py"), given.bundle, str(CASES))
    rows = [(name, *ran(command)) for name, command in pieces.items()]
    if not given.contract:
        rows.append(("contract", "not run: give --contract", 0.0))
    print("\n" + "\n".join(f"{name:38} {result:26} {seconds:7.0f} s" for name, result, seconds in rows))
    sys.exit(MISSED if any(result == "MISSED" for _, result, _ in rows) else 0)


def ran(command: Sequence[str]) -> tuple[str, float]:
    """Whether it held, and the seconds that it took."""
    print(f"\n$ {' '.join(command)}", flush=True)
    start = time.perf_counter()
    code = subprocess.run(command, check=False, env=os.environ | {"OCTAVO_LAWS": str(SCHEDULES)}).returncode
    return "MISSED" if code else "held", time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:])
