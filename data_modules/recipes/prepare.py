"""Complete or absent: a prepared folder appears under its name only once everything in it is written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_mm.mistake import Mistake

MANIFEST = "manifest.json"
console = Console()

Counts = dict[str, int]
Fill = Callable[[Path], Counts]


def prepare(out: Path, recipe: str, settings: dict[str, Any], fill: Fill) -> Counts:
    """Make the folder `out` with `fill`, unless it is there already with the same settings.

    The files are written into a hidden folder beside `out`, which takes its name at the very end. A run that is killed
    leaves at most that hidden folder, which no reader looks at and the next run removes. A folder that this recipe
    made with other settings is replaced in whole.

    Args:
        out: the folder to make.
        recipe: name of the recipe, kept in the folder's manifest.
        settings: everything that decides what the files contain, versions of packages included; JSON values only.
        fill: writes all files into the empty folder it is given and returns counts to report.

    Returns:
        The counts that `fill` returned, now or when the folder was made.

    Raises:
        Mistake: `out` was not made by this recipe, or was changed since.
        Mistake: another process is preparing something in the same parent folder.
        Mistake: `out` is a URL.
    """
    need_local(out)
    settings = json.loads(json.dumps(settings))
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(out.parent):
        for leftover in out.parent.glob(f".{out.name}.partial-*"):
            shutil.rmtree(leftover)
        made = _read_own(out, recipe)
        if made is not None and made["settings"] == settings:
            console.print(f"{recipe}: {out} is up to date ({_describe(made['counts'])})", markup=False, soft_wrap=True)
            return made["counts"]
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        partial.chmod(0o755)
        try:
            counts = fill(partial)
            manifest = {"recipe": recipe, "settings": settings, "counts": counts, "files": _fingerprint(partial)}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            _replace(out, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    how = "made" if made is None else "settings had changed, made anew"
    console.print(f"{recipe}: {how} {out} ({_describe(counts)})", markup=False, soft_wrap=True)
    return counts


def need_local(out: Path) -> None:
    """Refuse what would be written to a local folder of a URL's name.

    Raises:
        Mistake: `out` is a URL.
    """
    if ":/" in str(out):  # of two slashes `Path` leaves one
        raise Mistake(f"--out is '{out}', a URL; name a place on a local disk, and copy it from there")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when this process ends in whatever way."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Mistake(f"another process is preparing data in '{folder}'; wait until it is done") from error
        yield
    finally:
        os.close(descriptor)


def _read_own(out: Path, recipe: str) -> dict[str, Any] | None:
    """The manifest of `out`, or None where there is no such folder (an empty one counts as none)."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    advice = "delete it or choose another --out"
    if not (out / MANIFEST).is_file():
        raise Mistake(f"'{out}' exists but was not made by the recipe '{recipe}'; {advice}")
    made = read_note(out / MANIFEST, ("recipe", "settings", "counts", "files"))
    if made.get("recipe") != recipe:
        raise Mistake(f"'{out}' was made by the recipe '{made.get('recipe')}', not by '{recipe}'; {advice}")
    if made["files"] != _fingerprint(out):
        raise Mistake(f"files in '{out}' were added, removed or changed since the recipe made them; {advice}")
    return made


def read_note(file: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object that a recipe left beside what it made.

    Raises:
        Mistake: the file was damaged, so that nothing says whose the data are.
    """
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
        return {key: note[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise Mistake(f"'{file}' is damaged ({error}); delete what it describes or choose another --out") from error


def _fingerprint(folder: Path) -> str:
    """SHA-256 of the relative names and sizes of all files in a folder but its manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    lines = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _replace(out: Path, partial: Path) -> None:
    if out.exists():
        old = out.parent / f".{out.name}.partial-old"
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)
    else:
        partial.rename(out)


def _describe(counts: Counts) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
