"""Several runs of the program one after the other, in one process or in several as torchrun starts them.

`python -m tests.helpers.runs runs.json` is each of these processes; `write_runs` wrote the file.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.helpers.forked import Process, wait_for_all
from tests.helpers.program import environment


def write_runs(file: Path, runs: list[list[str]]) -> None:
    """Write the file that this module is started with."""
    ports = [environment()["MASTER_PORT"] for _ in runs]
    file.write_text(json.dumps(list(zip(ports, runs, strict=True))))


def run_all(folder: Path, runs: list[list[str]], ranks: int = 1, expect: int = 0) -> str:
    """Run them on so many processes; the output. Fails the test if the exit code is not the expected one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"runs_{ranks}.json"
    write_runs(file, runs)
    env = environment()
    started = [
        Process("tests.helpers.runs", str(file), env={**env, **as_torchrun(rank, ranks)}) for rank in range(ranks)
    ]
    return wait_for_all(started, expect)


def as_torchrun(rank: int, ranks: int) -> dict[str, str]:
    """The environment variables that torchrun gives to one of several processes."""
    if ranks == 1:
        return {}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    return {
        "TORCHELASTIC_RUN_ID": "tests",
        "MASTER_ADDR": "127.0.0.1",
        **{name: str(number) for name, number in numbers.items()},
    }


if __name__ == "__main__":
    from lit_mm.cli import main

    for port, arguments in json.loads(Path(sys.argv[1]).read_text()):
        # A store of its own for every run: in torchrun's, a process may read where the last run's processes listened.
        os.environ |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}
        main(arguments)
