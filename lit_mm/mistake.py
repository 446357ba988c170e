"""What is the user's to put right, told apart from what is ours."""

from __future__ import annotations


class Mistake(ValueError):
    """A configuration, a file or a request that cannot be used.

    The program ends with its text alone: one sentence with the YAML key or the file, what was found there, and what
    would be right. Any other exception is taken for a fault of the program and keeps its traceback.
    """

    @property
    def sentence(self) -> str:
        """What the user reads; a data worker's process passes it on as the end of a traceback."""
        text, own = str(self).strip(), f"{type(self).__module__}.{type(self).__qualname__}: "
        return text.rpartition(own)[2] if text.startswith("Caught ") else text


class MissingFile(Mistake, FileNotFoundError):
    """A file or folder that is named but not there."""
