"""Schemathesis against the OpenAPI document: `python tests/fire/contract.py BUNDLE [CASES]` (pip install schemathesis).

Not checked: that whatever the schema allows is accepted; what a model and its context allow is no matter of schema.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from serving import serving

KEY = "a-key-for-this-check"
VARIED = 3  # operations whose input varies; the others are soon tried out
NOT_CHECKED = "positive_data_acceptance"


def run(url: str, cases: int) -> str:
    """What schemathesis said. Raises SystemExit where it found a failure."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--url", url),
        *("--checks", "all", "--exclude-checks", NOT_CHECKED, "--mode", "all", "--phases", "coverage,fuzzing"),
        *("--max-examples", str(-(-cases // VARIED)), "--seed", "1", "--no-color", "--workers", "2"),
        *("--header", f"Authorization: Bearer {KEY}"),
        *("--generation-database", "none", "--continue-on-failure"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def main(bundle: Path, cases: int) -> None:
    with serving(bundle, api_keys=[KEY], max_num_queued_reqs=4096, max_body=1 << 24) as url:
        said = run(url, cases)
    summary = re.search(r"Test cases:.*(?:\n.*){0,3}", said)
    print(summary.group() if summary else said)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
