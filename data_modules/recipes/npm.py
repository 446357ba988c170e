"""Files of packages of the npm registry, which `npm` downloads."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from lit_mm.mistake import MissingFile


def npm_json(package: str, version: str, *files: str) -> list[Any]:
    """JSON files of a package, without installing it or running any of its code.

    Args:
        package: its name, such as `@iconify-json/noto`.
        version: which one; the registry never changes a version.
        files: paths inside the package.

    Raises:
        MissingFile: there is no `npm`, the package cannot be had, or it lacks a file.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise MissingFile(f"this recipe needs the program 'npm' to download '{package}': install Node.js")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{package}@{version}", "--silent", "--pack-destination", folder]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = " ".join((done.stderr or done.stdout).split())[:200]
            raise MissingFile(f"npm could not download '{package}@{version}': {reason or 'it wrote no archive'}")
        return [_read(archives[0], f"{package}@{version}", file) for file in files]


def _read(archive: Path, package: str, file: str) -> Any:
    with tarfile.open(archive) as tar:
        try:
            content = tar.extractfile(f"package/{file}")
        except KeyError:
            content = None
        if content is None:
            raise MissingFile(f"'{package}' has no file '{file}'")
        return json.load(content)
