"""Several runs of the program one after the other, in one process or in several that torchrun started.

`python -m tests.helpers.runs runs.json`, which `write_runs` wrote; starting Python once for all of them saves time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.program import ROOT, environment


def write_runs(file: Path, runs: list[list[str]]) -> None:
    """Write the file that this module is started with."""
    ports = [environment()["MASTER_PORT"] for _ in runs]
    file.write_text(json.dumps(list(zip(ports, runs, strict=True))))


def run_all(folder: Path, runs: list[list[str]], ranks: int = 1, expect: int = 0) -> str:
    """Run them on so many processes; the output. Fails the test if the exit code is not the expected one."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"runs_{ranks}.json"
    write_runs(file, runs)
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *start, "-m", "tests.helpers.runs", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == expect, output
    return output


if __name__ == "__main__":
    from lit_mm.cli import main

    for port, arguments in json.loads(Path(sys.argv[1]).read_text()):
        # A store of its own for every run: in torchrun's, a process may read where the last run's processes listened.
        os.environ |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}
        main(arguments)
