"""Output that reaches any terminal, whatever its characters are."""

from __future__ import annotations

import io
import sys

_ENDING = ("strict", "surrogateescape")  # what Python writes with, the second in the locale C


def write_anywhere() -> None:
    """Write characters that standard output or error cannot encode as `\\uXXXX`, and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _ENDING:
            stream.reconfigure(errors="backslashreplace")
