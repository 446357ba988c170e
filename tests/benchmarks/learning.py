"""How fast a model learns to draw what captions say, beside `transfusion-pytorch`.

Both learn the small world's captioned pictures (`data/crafter/drawing`): the same latents of the same visual tokenizer,
the same token ids, 20 pairs a step in the same order, in turns of at most a minute on the same core. After so many
minutes each draws the captions of worlds that neither has seen, and one judge looks which facts of the captions are true
of the pictures. A minute is one of the processor, so that other programs on the machine take nothing from either; on an
idle machine that is a minute by the clock. Judging does not count.

Equal: pairs, latents, batch, products in bfloat16 where the processor has them, dropped captions (10 %), parameters within 10 %, Euler's method with 25
evaluations, guidance 3, one thread. Different, each as its project has it: ours is `configs/model/lab.yaml` with Muon,
warm-up, weights by modality, packed rows and a noise shift that was chosen on this world; the peer has Adam, positions
within the picture (`add_pos_emb`), its timestep in every layer, and its own average. Nearly as wide as ours it is half as deep,
or as deep and narrower. A pilot tries both shapes at two rates of its examples, and the one with the least loss starts
anew.

Run: `python -m tests.benchmarks.learning`, after `pip install 'lit-mm[benchmarks]'` or `make test`, and
`python -m data_modules.recipes crafter --out data/crafter`. It takes more than an hour of one core. It may be stopped and
continued (SIGSTOP, SIGCONT): its clock is the processor's.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from callbacks.evaluation.lab.cases import PictureCase, picture_cases
from callbacks.evaluation.lab.draws import judge_drawings
from callbacks.evaluation.lab.tally import Tally
from lit_mm.lab.scene import WorldFile
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import VisualTokenizer
from tests.benchmarks.learners import RATES, SHAPES, Learner, Ours, Pairs, Peer
from tests.benchmarks.report import finish, options

OURS, PEER = "lit-mm", "transfusion-pytorch"
BATCH = 20  # pairs of a step, 2,000 tokens
TOGETHER = 64  # pictures that are encoded or drawn at a time
SLICE = 1.0  # minutes of a turn, at most
MINUTES = (1, 2, 4, 8, 14, 20)
ROOT = Path(__file__).parents[2]


class Taught:
    """A learner, and what it took so far."""

    def __init__(self, learner: Learner, pairs: Pairs) -> None:
        self.learner, self.pairs = learner, pairs
        self.batches = batches(len(pairs))
        self.processor = self.clock = 0.0  # seconds
        self.steps = 0
        self.flow: deque[float] = deque(maxlen=50)  # losses of the last steps

    def train(self, minutes: float) -> None:
        """Train until so many minutes of the processor were used in all."""
        while self.processor < 60 * minutes:
            batch = self.pairs.some(next(self.batches))
            processor, clock = time.process_time(), time.perf_counter()
            self.flow.append(self.learner.step(batch, self.steps))
            self.processor += time.process_time() - processor
            self.clock += time.perf_counter() - clock
            self.steps += 1

    def spent(self) -> dict[str, float]:
        """What it took, and its loss of late (in units of its own)."""
        flow = sum(self.flow) / len(self.flow)
        return {"steps": self.steps, "processor": self.processor, "clock": self.clock, "flow_loss": flow}


class Judge:
    """Captions of unseen worlds, and which of their facts are true of pictures.

    Args:
        data: folder of the recipe `crafter`.
        vision: the visual tokenizer of all learners.
        count: of captions.
    """

    def __init__(self, data: Path, vision: VisualTokenizer, count: int) -> None:
        self.world = WorldFile.load(str(data / "world.json"))
        self.cases = picture_cases(self.world, str(data), "drawing", "val", count, vision.image_size)
        self.captions = token_ids(self.cases, Tokenizer(data / "tokenizer.json"))
        self.vision = vision

    def __call__(self, learner: Learner) -> dict[str, float]:
        """Shares of what a learner draws right."""
        starts = range(0, len(self.captions), TOGETHER)
        return self.of(torch.cat([learner.draw(self.captions[start : start + TOGETHER]) for start in starts]))

    def of(self, latents: Tensor) -> dict[str, float]:
        """Shares that are right of pictures by their latents (captions, tokens, channels)."""
        pictures = torch.cat([self.vision.decode(part) for part in latents.split(TOGETHER)])
        tally = Tally()
        judge_drawings(self.world, self.cases, pictures, tally)
        return tally.values()

    def bounds(self) -> dict[str, dict[str, float]]:
        """The same of true pictures through the visual tokenizer, and of those of other captions."""
        true = encode(self.vision, self.cases)
        return {"true pictures": self.of(true), "pictures of other captions": self.of(true.roll(1, 0))}


def batches(pairs: int) -> Iterator[list[int]]:
    """Which pairs each step sees, the same for all: epoch after epoch in random order."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(pairs, generator=generator).tolist()
        yield from (order[start : start + BATCH] for start in range(0, max(1, pairs - BATCH + 1), BATCH))


def token_ids(cases: Sequence[PictureCase], tokenizer: Tokenizer) -> list[Tensor]:
    """Of the captions."""
    return [torch.tensor(ids) for ids in tokenizer.encode_batch([case.caption for case in cases])]


@torch.no_grad()
def encode(vision: VisualTokenizer, cases: Sequence[PictureCase]) -> Tensor:
    """Latents of the cases' pictures, (cases, tokens, channels) float32."""
    parts = torch.stack([case.picture for case in cases]).split(TOGETHER)
    return torch.cat([vision.encode(part).float() for part in parts])


def in_turns(taught: Mapping[str, Taught], minutes: Sequence[float]) -> Iterator[tuple[str, float]]:
    """Train all in turns; whenever one has had one of `minutes`, say its name and which."""
    turns = {SLICE * turn for turn in range(1, math.ceil(max(minutes) / SLICE))}
    for stop in sorted(turns | set(minutes)):
        for name, one in taught.items():
            one.train(stop)
            if stop in minutes:
                yield name, stop


def minutes_needed(curve: Mapping[float, float], share: float) -> float | None:
    """When a curve of shares by minutes first reaches a share, on straight lines between its points; None if never.

    Before its first point nothing is known: a share that it has reached by then took all of these minutes.
    """
    before: tuple[float, float] | None = None
    for minute, found in sorted(curve.items()):
        if found >= share:
            if before is None:
                return minute
            return before[0] + (minute - before[0]) * (share - before[1]) / (found - before[1])
        before = minute, found
    return None


def best_peer(ours: Ours, pairs: Pairs, minutes: float) -> tuple[Peer, dict[str, Any]]:
    """The peer, untrained, in the setting that lost least after so many minutes of each; and what each came to."""
    vision = ours.vision
    sizes = ours.tokenizer.vocab_size, math.isqrt(vision.num_tokens), vision.channels
    tried = {f"rate {rate:g}, {shape}": (rate, shape) for shape, rate in product(SHAPES, RATES)}
    found: dict[str, Any] = {}
    if minutes:
        taught = {name: Taught(Peer(*setting, *sizes), pairs) for name, setting in tried.items()}
        for name, _ in in_turns(taught, [minutes]):
            found[name] = taught[name].spent()
            print(f"pilot, {name}: {found[name]}", flush=True)
    best = min(found, key=lambda name: found[name]["flow_loss"], default=next(iter(tried)))
    return Peer(*tried[best], *sizes), {"tried": found, "best": best}


def table_of(found: Mapping[str, Mapping[float, Mapping[str, float]]]) -> Table:
    """A row for each moment: the share of facts of each learner with its interval, and its steps."""
    table = Table("minutes", *[f"{name}: {what}" for name in found for what in ("facts right", "steps")])
    for minute in next(iter(found.values())):
        cells = []
        for rows in found.values():
            row = rows.get(minute)
            cells += [interval(row), f"{row['steps']:,.0f}"] if row else ["", ""]
        table.add_row(f"{minute:g}", *cells)
    return table


def interval(row: Mapping[str, float]) -> str:
    """A share of facts in per cent, and the ends of its interval."""
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*[100 * row[key] for key in ("facts", "facts_low", "facts_high")])


def needed(found: Mapping[str, Mapping[float, Mapping[str, float]]]) -> dict[str, float | None]:
    """Our minutes for what the peer has at the end: for its share, and for the upper end of its interval."""
    curve = {minute: row["facts"] for minute, row in found[OURS].items()}
    last = found[PEER][max(found[PEER])]
    minutes = {end: minutes_needed(curve, last[end]) for end in ("facts", "facts_high")}
    return {**minutes, "peer": max(found[PEER])}


def main() -> None:
    """Print a table and write it as JSON, anew after every picture judged."""
    parser = options(__doc__, "learning", pictures=12_000, captions=200, threads=1)
    parser.add_argument("--minutes", type=float, nargs="+", default=MINUTES, help="when both are judged")
    parser.add_argument("--data", type=Path, default=Path("data/crafter"), help="default data/crafter")
    vision = ROOT / "configs/vision/rae_lab.yaml"
    parser.add_argument("--vision", type=Path, default=vision, help="visual tokenizer; configs/vision/rae_lab.yaml")
    parser.add_argument("--pilot", type=float, default=3, help="minutes of each setting of the peer; default 3")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    ours = Ours(ROOT / "configs/model/lab.yaml", arguments.vision, Tokenizer(arguments.data / "tokenizer.json"))
    judge = Judge(arguments.data, ours.vision, arguments.captions)
    shown = "drawing", "train", arguments.pictures, ours.vision.image_size
    cases = picture_cases(judge.world, str(arguments.data), *shown)
    pairs = Pairs(token_ids(cases, ours.tokenizer), encode(ours.vision, cases))
    bounds = judge.bounds()
    print({name: interval(row) for name, row in bounds.items()}, flush=True)
    peer, pilot = best_peer(ours, pairs, arguments.pilot)
    taught = {PEER: Taught(peer, pairs), OURS: Taught(ours, pairs)}
    parameters = {name: sum(p.numel() for p in one.learner.model.parameters()) for name, one in taught.items()}
    found: dict[str, dict[float, dict[str, float]]] = {name: {} for name in taught}
    results: dict[str, Any] = {"vision": arguments.vision.name, "parameters": parameters, "bounds": bounds}
    for name, minute in in_turns(taught, arguments.minutes):
        found[name][minute] = {**taught[name].spent(), **judge(taught[name].learner)}
        print(f"{minute:g} min, {name}: {interval(found[name][minute])}, {taught[name].spent()}", flush=True)
        results |= {"pilot": pilot, "learned": found, "minutes_needed": needed(found) if found[OURS] else None}
        finish(table_of(found), results, arguments.out)
    print(results["minutes_needed"])


if __name__ == "__main__":
    main()
