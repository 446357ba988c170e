"""The weighted sampler: which documents go into which row, planned from their lengths alone.

A plan is a pure function of (seed, weights, lengths): every rank computes all of it and reads its own rows, so nothing
about ranks or workers is ever stored. Where the plan stands is a handful of integers per source (`RowPlanner.state`),
the same on every rank.

Weights are shares of tokens. Each row is filled from the source that is furthest behind its share; documents
that do not fit wait in a small window, and a source that may be split (text) fills what is left over. No source
runs ahead of its share by more than a few rows, which bounds the error of the achieved shares over any stretch of rows.
Weights may change with the tokens planned so far (`Stage`): shares count from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_modules.dataset import DocumentDataset, Draw
from data_modules.mixing.growth import compare, contents_of, fingerprint_of
from data_modules.mixing.order import Order, Stretch
from data_modules.mixing.permutation import key_of, mix
from data_modules.mixing.stages import Stage, weights_at
from lit_mm.mistake import Mistake

_CHUNK = 1024  # draws looked up at once
_WINDOW = 24  # documents of a source that may wait for a row with room
_MAX_WAIT = 8 * _WINDOW  # draws that a document may be passed over by others that fit better
_MAX_AHEAD = 3  # rows a source may run ahead of its share in order to fill gaps


class Piece(NamedTuple):
    """Positions `start` to `stop` of one drawn document (all of it, unless text was split)."""

    source: str
    draw: Draw
    start: int
    stop: int


class RowPlan(NamedTuple):
    """The pieces of one row in order, its number and the seed of its noise."""

    number: int
    seed: int
    pieces: tuple[Piece, ...]


class _Waiting(NamedTuple):
    number: int  # of the draw
    draw: Draw
    length: int


class DrawStream:
    """Draw number 0, 1, 2, … of one source: every document once per pass, each pass in a new order.

    Args:
        name: of the source; part of every key, so that adding a source changes no other one's order.
        dataset: its lengths, variants and shares.
        seed: of the run.
        shuffle: false keeps the documents in order (validation).
        documents: stop after so many draws, spread evenly over the source if unshuffled; endless by default.
        window: documents that are shuffled among each other, see `permute_in_windows`; None shuffles all.
    """

    def __init__(
        self,
        name: str,
        dataset: DocumentDataset,
        seed: int,
        shuffle: bool = True,
        documents: int | None = None,
        window: int | None = None,
    ) -> None:
        self.name, self.dataset, self.seed = name, dataset, seed
        self.shuffle, self.documents = shuffle, documents
        self.size = len(dataset)
        self.window = window
        self.splittable = dataset.splittable
        self.fingerprint = fingerprint_of(dataset, self.size)
        self.files = contents_of(dataset)
        self.order = Order([Stretch(0, self.size)], window, seed, name)
        self._cumulative = np.cumsum(dataset.shares)[:-1]
        self.next = 0  # first draw that was never looked at
        self.offset = 0  # positions already used of a split document
        self.tokens = 0  # placed since the weights last changed
        self.waiting: list[_Waiting] = []
        self._chunk_start, self._chunk = -1, []  # type: int, list[_Waiting]

    def window_of(self, size: int) -> int | None:
        """Documents shuffled among each other where there are `size`; None for all."""
        return self.window if self.window is not None and self.window < size else None

    def _lookup(self, number: int) -> _Waiting:
        start = number - number % _CHUNK
        if start != self._chunk_start:
            self._chunk_start, self._chunk = start, self._draws(np.arange(start, start + _CHUNK))
        return self._chunk[number - start]

    def _draws(self, numbers: np.ndarray) -> list[_Waiting]:
        spread = numbers * self.size // (self.documents or self.size) % self.size
        index = self.order.indices(numbers) if self.shuffle else spread
        seeds = (mix(numbers, key_of(self.seed, self.name, "draw")) >> np.uint64(1)).astype(np.int64)
        uniform = mix(numbers, key_of(self.seed, self.name, "variant")) / 2.0**64
        variants = np.searchsorted(self._cumulative, uniform, side="right")
        lengths = self.dataset.lengths[variants, index]
        columns = (numbers.tolist(), index.tolist(), variants.tolist(), seeds.tolist(), lengths.tolist())
        return [_Waiting(n, Draw(i, v, s), length) for n, i, v, s, length in zip(*columns, strict=True)]

    def take(self, space: int) -> Piece | None:
        """The next piece that fits `space` positions, or None."""
        limit = self.documents
        window = 1 if self.splittable else _WINDOW
        waiting = self.waiting
        while len(waiting) < window and (limit is None or self.next < limit):
            waiting.append(self._lookup(self.next))
            self.next += 1
        if self.splittable and waiting:
            head = waiting[0]
            start, stop = self.offset, min(head.length, self.offset + space)
            self.offset = stop
            if stop == head.length:
                waiting.pop()
                self.offset = 0
            return Piece(self.name, head.draw, start, stop)
        chosen = self._fitting(space)
        if chosen is None:
            return None
        candidate = waiting.pop(chosen)
        return Piece(self.name, candidate.draw, 0, candidate.length)

    def _fitting(self, space: int) -> int | None:
        """Which waiting document to place: the oldest, but near a row's end the one that leaves least behind."""
        waiting = self.waiting
        if waiting and waiting[0].length <= space:
            overdue = self.next - waiting[0].number > _MAX_WAIT
            if overdue or 4 * waiting[0].length <= space:
                return 0
        order = sorted((w.length, i) for i, w in enumerate(waiting))
        best, filled = None, 0
        small, large = 0, len(order) - 1
        while large >= 0 and filled < space:
            length, i = order[large]
            if length > filled and length <= space:
                best, filled = i, length
            if small < large and length + order[small][0] <= space:  # alone, or with one more behind it
                if length + order[small][0] > filled:
                    best, filled = i, length + order[small][0]
                small += 1
            else:
                large -= 1
        return best

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as integers."""
        waiting = [w.number for w in self.waiting]
        return {
            "documents": self.size,
            "fingerprint": self.fingerprint,
            "files": self.files,
            "stretches": [list(stretch) for stretch in self.order.stretches],
            "window": self.window_of(self.size),
            "next": self.next,
            "waiting": waiting,
            "offset": self.offset,
            "tokens": self.tokens,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, of the same documents or of the first ones of them."""
        self.next, self.offset, self.tokens = state["next"], state["offset"], state["tokens"]
        stretches = [Stretch(*s) for s in state.get("stretches", [(0, state["documents"])])]
        if state["documents"] < self.size:
            stretches.append(Stretch(self.next, self.size))
        self.order = Order(stretches, self.window, self.seed, self.name)
        self.waiting = [self._lookup(number) for number in state["waiting"]]


class RowPlanner:
    """Plans row after row of a weighted mixture.

    Args:
        streams: by source name.
        weights: share of tokens of each source; they are normalised to sum to 1.
        row_length: positions in a row.
        seed: of the rows' noise.
        stages: other weights for the rows before.
    """

    def __init__(
        self,
        streams: Mapping[str, DrawStream],
        weights: Mapping[str, float],
        row_length: int,
        seed: int,
        stages: Sequence[Stage] = (),
    ) -> None:
        self.streams = list(streams.values())
        self.row_length = row_length
        self.seed = seed
        self.rows = 0
        self._mixture, self._stages = weights, stages
        self.weights = self._weights()

    def _weights(self) -> list[float]:
        """Those of the next row, for each stream."""
        mixture = weights_at(self.rows * self.row_length, self._mixture, self._stages)
        weights = [mixture.get(stream.name, 0) for stream in self.streams]
        return [weight / sum(weights) for weight in weights]

    def next_row(self) -> RowPlan:
        """Plan one row. Of a single stream that ends, a row without pieces is the end."""
        space = self.row_length
        ahead_limit = _MAX_AHEAD * self.row_length
        pieces: list[Piece] = []
        streams = [pair for pair in zip(self.streams, self.weights, strict=True) if pair[1] > 0]
        total = sum(s.tokens for s in self.streams)
        while space and streams:
            stream, weight = min(streams, key=lambda pair: pair[0].tokens - pair[1] * total)
            piece = stream.take(space) if stream.tokens - weight * total <= ahead_limit else None
            if piece is None:  # what does not fit now will not fit the smaller space left later in this row
                streams.remove((stream, weight))
                continue
            taken = piece.stop - piece.start
            stream.tokens += taken
            total += taken
            space -= taken
            pieces.append(piece)
        plan = RowPlan(self.rows, key_of(self.seed, "row", self.rows), tuple(pieces))
        self.rows += 1
        before, self.weights = self.weights, self._weights()
        if self.weights != before:
            self._count_from_here()
        return plan

    def state(self) -> dict[str, Any]:
        """Where the plan stands: rows planned so far, and every stream's place. The same on every rank."""
        return {
            "rows": self.rows,
            "seed": self.seed,
            "row_length": self.row_length,
            "weights": {s.name: w for s, w in zip(self.streams, self.weights, strict=True)},
            "sources": {s.name: s.state() for s in self.streams},
        }

    def load_state(self, state: Mapping[str, Any]) -> list[str]:
        """Go on from `state`; sources may have been added, removed or reweighted since.

        Returns:
            One sentence for every difference, for the log. Without any, the plan goes on exactly.

        Raises:
            Mistake: the state was made with another seed, which orders every document anew.
        """
        if state["seed"] != self.seed:
            raise Mistake(
                f"data.loader.seed is {self.seed} but the checkpoint's data order was made with {state['seed']}; "
                "set it back, or start without the checkpoint's data state"
            )
        said: list[str] = []
        self.rows = state["rows"]
        self.weights = self._weights()
        known = state["sources"]
        for stream in self.streams:
            before = known.get(stream.name)
            if before is None:
                said.append(f"source '{stream.name}' is new and starts at its first document")
                continue
            sentence, goes_on = compare(before, stream.name, stream.dataset)
            said += [sentence] if sentence else []
            if goes_on:
                stream.load_state(before)
                was, now = before.get("window"), stream.window_of(before["documents"])
                if was != now:
                    said.append(
                        f"source '{stream.name}' is shuffled among {now or 'all'} documents, not {was or 'all'}: some "
                        "come twice in this pass, and others not at all"
                    )
        said += [f"source '{name}' is no longer in the mixture" for name in known if name not in self._names()]
        weights = {s.name: w for s, w in zip(self.streams, self.weights, strict=True)}
        changed = [n for n, w in weights.items() if n in known and abs(w - state["weights"][n]) > 1e-12]
        if changed:
            text = ", ".join(f"{n} {state['weights'][n]:.4g} → {weights[n]:.4g}" for n in changed)
            said.append(f"shares changed from row {self.rows} on: {text}")
        if state["row_length"] != self.row_length:
            said.append(f"rows are {self.row_length} positions long from row {self.rows} on, not {state['row_length']}")
        if said:
            self._count_from_here()
        return said

    def _count_from_here(self) -> None:
        for stream in self.streams:
            stream.tokens = 0

    def _names(self) -> set[str]:
        return {s.name for s in self.streams}
