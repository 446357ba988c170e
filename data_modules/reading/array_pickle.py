"""Pickles of arrays, read without running what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from data_modules.dataset import BrokenFile

# What pickles of NumPy's arrays are made of, by all its names over the years; nothing else is ever looked up.
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_NAMES = ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")


class _ArraysAlone(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may do anything; arrays alone are read")


def read_arrays(file: Path) -> Any:
    """What a pickle holds: arrays, numbers and texts, in lists and dicts.

    Raises:
        BrokenFile: it is no pickle, or it asks for anything else.
    """
    try:
        with open(file, "rb") as stream:
            return _ArraysAlone(stream).load()
    except OSError as error:
        raise BrokenFile(file, error) from error
    except Exception as error:  # a pickle that is cut or made up raises nearly anything
        raise BrokenFile(file, error) from error
