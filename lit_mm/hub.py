"""Files of the Hugging Face Hub, asked for by one process of a machine while the others wait for what it finds."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from filelock import FileLock

CONNECT_SECONDS = 5.0


class NotFromHub(OSError):
    """Files that are neither in the cache nor to be had from the Hub; says why, as a part of a sentence."""


def is_repository(name: str) -> bool:
    """Whether a string may be the name of a repository, `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def from_hub(repository: str, wanted: Sequence[Sequence[str]]) -> list[Path]:
    """Files of a repository, from the cache of the Hub's client or downloaded into it.

    Processes that share the cache ask one after the other, and whoever finds the files there asks nobody. So of all
    the processes of a machine, or of a cluster with a shared cache, one downloads.

    Args:
        repository: its name, such as `facebook/dinov2-base`.
        wanted: of each file the names it may have; the first that is there is taken.

    Returns:
        The path of each.

    Raises:
        NotFromHub: they are not in the cache, and the Hub cannot be reached or has none of the names.
    """
    from huggingface_hub import constants

    if (found := _cached(repository, wanted)) is not None:
        return found
    if constants.HF_HUB_OFFLINE:
        raise NotFromHub("HF_HUB_OFFLINE is set")
    try:
        locks = Path(constants.HF_HUB_CACHE) / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"models--{repository.replace('/', '--')}.lock"):
            if (found := _cached(repository, wanted)) is not None:
                return found
            if reason := _unreachable(constants.ENDPOINT):
                raise NotFromHub(reason)
            return _download(repository, wanted)
    except NotFromHub:
        raise
    except (OSError, ValueError) as error:
        raise NotFromHub(" ".join(str(error).split())[:150]) from error


def _cached(repository: str, wanted: Sequence[Sequence[str]]) -> list[Path] | None:
    from huggingface_hub import try_to_load_from_cache

    found: list[Path] = []
    for names in wanted:
        places = (try_to_load_from_cache(repository, name) for name in names)
        place = next((place for place in places if isinstance(place, str)), None)
        if place is None:
            return None
        found.append(Path(place))
    return found


def _download(repository: str, wanted: Sequence[Sequence[str]]) -> list[Path]:
    """All files of one commit, the newest."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found: list[Path] = []
    commit: str | None = None
    for names in wanted:
        for name in names:
            try:
                place = Path(hf_hub_download(repository, name, revision=commit))
            except LocalEntryNotFoundError:  # the Hub did not answer
                raise
            except EntryNotFoundError:
                continue
            found.append(place)
            commit = place.parents[name.count("/")].name
            break
        else:
            raise NotFromHub(f"it has no {' or '.join(names)}")
    return found


def _unreachable(endpoint: str) -> str | None:
    """Why the Hub cannot be reached; None if it can. Its own client would retry for more than a minute."""
    address = urlsplit(endpoint)
    if getproxies():
        return None  # the proxy finds it, not this machine
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"{address.hostname}: {error.strerror or error}"
    return None
