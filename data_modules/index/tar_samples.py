"""Samples of a tar as WebDataset means them: members whose names differ in their endings alone."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, cast

_OCTAL = frozenset(b"01234567")
BLOCK = 512  # bytes of a header; members begin at multiples of it
MOST_PADDING = 1 << 16  # zeros that may follow the last member; GNU tar fills up 10 KiB, some others more


@dataclass
class Member:
    """A file in a tar: where its bytes begin, and how many they are."""

    offset: int
    size: int


@dataclass
class Sample:
    """Members of one name.

    Args:
        key: the name, with its folders, up to the first dot of its last part.
        members: by ending, without the first dot.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)


class DamagedTar(Exception):
    """A tar that is cut or overwritten; what stands before the damage was read.

    Args:
        reason: what is wrong, and where.
        unread: bytes of the tar that may hold more samples.
    """

    def __init__(self, reason: str, unread: int) -> None:
        super().__init__(reason)
        self.reason, self.unread = reason, unread


def _plain(header: bytes) -> tuple[str, int] | None:
    """Name and bytes of a plain file, whose header says nothing besides that is used here; None of any other header."""
    if len(header) < BLOCK or header[156] != ord("0") or not header[0] or header[345]:  # a prefix of the name
        return None
    size, check = (field.strip(b" \0") for field in (header[124:136], header[148:156]))
    if not size or not check or not _OCTAL.issuperset(size + check):
        return None
    if int(check, 8) != 256 + sum(header) - sum(header[148:156]):
        return None
    return str(header[:100].partition(b"\0")[0], "utf-8", "backslashreplace"), int(size, 8)


class _Header(tarfile.TarInfo):
    """A member's header, of which tarfile parses all fields, but not of plain files."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Header:
        """One header of 512 bytes.

        Raises:
            tarfile.HeaderError: it is none.
        """
        if plain := _plain(buf):
            header = cls(plain[0])
            header.size = plain[1]
            return header
        return cast(_Header, super().frombuf(buf, encoding, errors))


def tar_members(stream: IO[bytes], size: int) -> Iterator[tuple[str, Member]]:
    """Names of regular files in a tar and where they lie, in their order; GNU's and PAX's long names are read.

    Bytes of a name that are no UTF-8 are shown as `\\xe9`.

    Args:
        stream: the tar; what reads it in between may leave it anywhere.
        size: of the tar in bytes.

    Raises:
        DamagedTar: after the members before the damage.
    """
    end = 0
    for name, member in _plain_members(stream):
        stop = member.offset + -(-member.size // BLOCK) * BLOCK
        if stop > size:
            raise DamagedTar(f"it ends inside '{name}'", size - end)
        end = stop
        yield name, member
    stream.seek(end)
    try:
        with tarfile.open(
            fileobj=stream, mode="r:", tarinfo=_Header, encoding="utf-8", errors="backslashreplace"
        ) as tar:  # else names are read as the locale has them
            while (info := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep them all
                if tar.offset > size:
                    raise DamagedTar(f"it ends inside '{info.name}'", size - end)
                end = tar.offset
                if info.isreg() and not info.issparse():
                    yield info.name, Member(info.offset_data, info.size)
    except tarfile.TarError as error:
        raise DamagedTar(str(error), size - end) from error
    _check_end(stream, end, size)


def _plain_members(stream: IO[bytes]) -> Iterator[tuple[str, Member]]:
    """Members from the first on, up to one that is no plain file; tarfile takes several times as long for each."""
    at = 0
    while True:
        stream.seek(at)
        plain = _plain(stream.read(BLOCK))
        if plain is None:
            return
        name, size = plain
        yield name, Member(at + BLOCK, size)
        at += BLOCK + -(-size // BLOCK) * BLOCK


def _check_end(stream: IO[bytes], end: int, size: int) -> None:
    """Tarfile takes anything that is no header for the end of a tar; only zeros to the end of the file are."""
    stream.seek(end)
    at = end
    while block := stream.read(1 << 20):
        if block.count(0) < len(block):
            break
        at += len(block)
    if at < size:
        raise DamagedTar(f"there is no member's header at byte {end} of {size}", size - end)
    if size - end < BLOCK:
        raise DamagedTar(f"it is cut at byte {size}, after a whole member", 0)
    if size - end > MOST_PADDING:
        raise DamagedTar(f"it holds nothing but zeros from byte {end} of {size} on", size - end)


class SampleGrouper:
    """Puts members together that belong to one sample, also where they are not neighbours.

    An ending that comes again under the same name begins another sample.

    Attributes:
        samples: all that were begun, in their order.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._latest: dict[str, Sample] = {}

    def add(self, name: str, member: Member) -> tuple[Sample, str] | None:
        """The sample that a member belongs to and the ending it has there; None for files that are none of a sample."""
        folders, slash, last = name.rpartition("/")
        stem, dot, ending = last.partition(".")
        if not stem or not dot:
            return None
        key, ending = folders + slash + stem, ending.lower()
        sample = self._latest.get(key)
        if sample is None or ending in sample.members:
            sample = self._latest[key] = Sample(key)
            self.samples.append(sample)
        sample.members[ending] = member
        return sample, ending
