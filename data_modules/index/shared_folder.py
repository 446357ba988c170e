"""A folder of files that appear whole or not at all, on a local disk or on any storage that fsspec knows."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_modules.index.array_file import appear
from data_modules.index.input_files import found_in, local_file
from data_modules.index.storage import InputFile, UnreachedFile, content_of, filesystem, is_remote, patiently
from lit_mm.mistake import Mistake

LISTING = "files.json"  # names what is there to those who may not list the folder


class SharedFolder:
    """Files of one kind, flat in a folder. Several processes may write there at once.

    Args:
        path: of the folder, or its URL. What is at `http://` and `https://` is read only, and not listed.
        ending: of the files.
        key: the YAML key, for messages.
    """

    def __init__(self, path: str, ending: str, key: str) -> None:
        self.path, self.ending, self.key = path.rstrip("/"), ending, key

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return is_remote(self.path)

    @property
    def is_writable(self) -> bool:
        """Whether files can be put there, as far as its address says."""
        return not self.path.startswith(("http://", "https://"))

    def files(self) -> list[InputFile]:
        """What is there now, sorted by name; nothing where there is no such folder.

        Raises:
            Mistake: the storage cannot be reached.
        """
        if not self.is_remote:
            found = [file for file in Path(self.path).glob(f"*{self.ending}") if not file.name.startswith(".")]
            return sorted(map(local_file, found), key=lambda file: file.path)
        try:
            if not self.is_writable:
                return self._listed()
            return sorted(found_in(self.path, self.ending), key=lambda file: file.path)
        except (UnreachedFile, ImportError, ValueError, OSError) as error:
            reason = error.reason if isinstance(error, UnreachedFile) else error
            raise Mistake(f"{self.key}: '{self.path}' cannot be looked up: {reason}") from error

    def _listed(self) -> list[InputFile]:
        try:
            content = content_of(InputFile(f"{self.path}/{LISTING}", 0, ""))
        except FileNotFoundError:
            return []
        return [InputFile(f"{self.path}/{name}", size, "") for name, size in json.loads(content)]

    def put(self, name: str, write: Callable[[Path], Any]) -> None:
        """Have a file appear, or take the place of the one that is there.

        Args:
            name: of the file.
            write: writes all of it to the path that it is given.

        Raises:
            Mistake: it cannot be written.
        """
        if not self.is_remote:
            appear(Path(self.path) / name, write, self.key)
            return
        fs, folder = filesystem(self.path)
        with tempfile.TemporaryDirectory() as beside:
            file = Path(beside) / name
            try:
                write(file)
                patiently(lambda: fs.put_file(str(file), f"{folder}/{name}"), self.path)
            except (UnreachedFile, ImportError, ValueError, OSError, NotImplementedError) as error:
                reason = error.reason if isinstance(error, UnreachedFile) else error
                raise Mistake(f"{self.key}: '{self.path}/{name}' cannot be written ({reason})") from error

    def say_what_is_there(self) -> None:
        """Write down the names of all files, for those who may read them but not list the folder."""
        there = [(file.path.rpartition("/")[2], file.size) for file in self.files()]
        self.put(LISTING, lambda file: file.write_text(json.dumps(there)))

    def room(self) -> int | None:
        """Bytes that are free there; None where nobody knows."""
        if self.is_remote:
            return None
        folder = Path(self.path).absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free
