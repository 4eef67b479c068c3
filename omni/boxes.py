"""Look through an MP4 or MOV file's tables before anybody builds an index from them.

A few bytes may claim billions of samples, and an index of them takes gigabytes and minutes before the first packet.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from omni.errors import InputError

__all__ = ["check_boxes"]

_MAX_ENTRIES = 1_000_000  # of an index; four hours at 60 frames a second stay below
_MAX_BOXES = 20_000
_MAX_DEPTH = 12
_SAMPLES_PER_ENTRY = 1_024  # of uncompressed sound

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf", b"dinf", b"tref"}
# Read less strictly, by scanning: an index may be built from boxes anywhere in these.
_LOOSE = {b"stsd", b"udta", b"meta", b"free", b"skip", b"wide", b"wave", b"ilst", b"ipro", b"sinf"}
_TABLES = {b"stsz", b"stz2", b"stts", b"ctts", b"trun", b"elst", b"stsc", b"stco", b"co64", b"hdlr"}
_MAX_LOOSE_BYTES = 16 * 2**20


@dataclass
class _Track:
    """What the tables of one track claim."""

    samples: int = 0
    timed: int = 0
    edits: int = 0
    chunks: int = 0
    handlers: set[bytes] = field(default_factory=set)
    steps: list[tuple[int, int]] = field(default_factory=list)  # samples, duration of each
    runs: list[tuple[int, int]] = field(default_factory=list)  # first chunk, samples in each

    @property
    def entries(self) -> int:
        """Number of entries that an index of the track would have."""
        if self.handlers & {b"soun", b"vide"} == {b"soun"} and len(self.steps) == 1 and self.steps[0][1] == 1:
            ends = [first for first, _ in self.runs[1:]] + [self.chunks + 1]
            held = sum(max(0, end - first) * count for (first, count), end in zip(self.runs, ends, strict=True))
            return held // _SAMPLES_PER_ENTRY + self.chunks
        return max(self.samples, self.timed) * max(1, self.edits)


def _pairs(file: BinaryIO, count: int, step: int) -> np.ndarray:
    """Read the first two numbers of each row of `step` bytes, as far as the file goes."""
    data = file.read(min(count, _MAX_ENTRIES) * step)
    rows = np.frombuffer(data[: len(data) // step * step], ">u4").reshape(-1, step // 4)
    return rows[:, :2].astype(np.int64)


def _read_table(kind: bytes, file: BinaryIO, start: int, track: _Track) -> None:
    file.seek(start)
    head = file.read(12).ljust(12, b"\0")
    count, second = struct.unpack(">4xII", head)
    file.seek(start + 8)
    match kind:
        case b"stsz" | b"stz2":
            track.samples += second
        case b"trun":
            track.samples += count
        case b"stts" | b"ctts":
            pairs = _pairs(file, count, 8)
            track.timed = max(track.timed, int(pairs[:, 0].sum()))
            if kind == b"stts":
                track.steps += [(int(a), int(b)) for a, b in pairs[:2]]
        case b"elst":
            track.edits += count
        case b"stsc":
            track.runs += [(int(a), int(b)) for a, b in _pairs(file, count, 12)]
        case b"stco" | b"co64":
            track.chunks += count
        case b"hdlr":
            track.handlers.add(head[8:12])


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the content of each box."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        body = start + 8
        if size == 1 and len(head) == 16:
            size, body = struct.unpack(">Q", head[8:])[0], start + 16
        stop = end if size == 0 else min(start + size, end)
        if stop < body:
            return
        yield kind, body, stop
        start = stop


class _Checker:
    def __init__(self, file: BinaryIO, *, name: str) -> None:
        self.file, self.name = file, name
        self.num_boxes = 0
        self.tracks = [_Track()]

    def _scan(self, start: int, end: int) -> None:
        self.file.seek(start)
        data = self.file.read(min(end - start, _MAX_LOOSE_BYTES))
        for kind in _TABLES:
            place = data.find(kind)
            while place >= 0:
                _read_table(kind, self.file, start + place + 4, self.tracks[-1])
                place = data.find(kind, place + 4)
        if b"cmov" in data:
            self._refuse("has a compressed header")

    def walk(self, start: int, end: int, depth: int = 0) -> None:
        for kind, body, stop in _boxes(self.file, start, end):
            self.num_boxes += 1
            if self.num_boxes > _MAX_BOXES or depth > _MAX_DEPTH:
                self._refuse("has too many parts in its header")
            if kind == b"cmov":
                self._refuse("has a compressed header")
            if kind == b"trak":
                self.tracks.append(_Track())
            if kind in _TABLES:
                _read_table(kind, self.file, body, self.tracks[-1])
            elif kind in _CONTAINERS:
                self.walk(body, stop, depth + 1)
            elif kind in _LOOSE:
                self._scan(body, stop)
        if depth == 0 and sum(track.entries for track in self.tracks) > _MAX_ENTRIES:
            self._refuse(f"claims more than {_MAX_ENTRIES} samples")

    def _refuse(self, why: str) -> None:
        raise InputError(f"{self.name} {why}; save it again as MP4.")


def check_boxes(file: BinaryIO, *, name: str) -> None:
    """Refuse a file whose index would be far larger than any clip's.

    Args:
        file: an MP4 or MOV file; left at its beginning.
        name: what errors call it.

    Raises:
        InputError: it claims too many samples, chunks or edits.
    """
    _Checker(file, name=name).walk(0, file.seek(0, os.SEEK_END))
    file.seek(0)
