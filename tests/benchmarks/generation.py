"""Tokens and frames a second by batch size, with and without a cache, and beside the sampler of `transfusion-pytorch`.

Both models have random weights, width 256, depth 4 and frames of 64 visual tokens. 64 tokens are written, most likely
first, behind prompts of 32; a frame is drawn behind a caption of 16 tokens in 16 evaluations without guidance. Without a
cache ours runs the whole row through the model for every token and every evaluation (`tests.helpers.uncached`).

Run: `python -m tests.benchmarks.generation`, after `pip install 'lit-mm[benchmarks]'` or `make test`, and `make data`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from lit_mm.backbone import DenseFeedForward
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Request
from lit_mm.sequence import Text
from lit_mm.tokenizer import Tokenizer
from tests.benchmarks.decoding import TOKENIZER
from tests.benchmarks.interleaved import interleaved, ratio
from tests.benchmarks.our_model import GivenLatents, Size, lit_model
from tests.benchmarks.peers import CHANNELS, SIDE, VOCABULARY
from tests.benchmarks.report import finish, options
from tests.helpers.uncached import Uncached

BATCHES = (1, 4, 16)
PROMPT, CAPTION, TOKENS, EVALUATIONS = 32, 16, 64, 16
Task = Callable[[int], None]


class Ours:
    """Our decoder, with its cache and without."""

    def __init__(self) -> None:
        size = Size(256, 4, 4, 4, VOCABULARY, SIDE**2, CHANNELS)
        model = lit_model(size, partial(DenseFeedForward, hidden_dim=688)).model.eval()
        sampler = FlowSampler("euler", EVALUATIONS, guidance_scale=1.0)
        parts = model, GivenLatents(SIDE**2, CHANNELS), FlowMatching(), sampler, Tokenizer(TOKENIZER)
        self.cached, self.uncached = Decoder(*parts), Uncached(*parts)
        self.tokenizer = parts[-1]
        nn.init.zeros_(model.text_head.linear.weight[self.tokenizer.eos_id])  # others are likelier: answers go on

    def write(self, prompts: Tensor, number: int) -> None:
        """64 tokens behind each of (batch, prompt) ids."""
        requests = [Request([Text(ids)], max_tokens=TOKENS) for ids in prompts]
        answers = self.cached.generate(requests)
        assert all(len(answer.ids) == TOKENS for answer in answers)

    def draw(self, captions: Tensor, number: int) -> None:
        """A frame behind each of (batch, caption) ids."""
        prefixes = [[Text(torch.cat([ids, self.tokenizer.ids(self.tokenizer.boi_id)]))] for ids in captions]
        self.cached.draw_latents(prefixes, list(range(len(prefixes))))

    def write_uncached(self, prompts: Tensor, number: int) -> None:
        """As `write`, one prompt."""
        self.uncached.continue_row([Text(prompts[0])], lambda possible, _: int(possible.argmax()), max_tokens=TOKENS)


class Peer:
    """`transfusion-pytorch`, whose sampler of frames always has a cache."""

    def __init__(self) -> None:
        from loguru import logger
        from tqdm import tqdm
        from transfusion_pytorch import Transfusion, transfusion

        logger.disable("transfusion_pytorch")
        transfusion.tqdm = partial(tqdm, disable=True)
        torch.manual_seed(0)
        self.model = Transfusion(
            num_text_tokens=VOCABULARY,
            dim_latent=CHANNELS,
            modality_default_shape=(SIDE, SIDE),
            transformer={"dim": 256, "depth": 4, "dim_head": 64, "heads": 4},
            odeint_kwargs={"method": "euler"},
        ).eval()

    @torch.no_grad()
    def write(self, prompts: Tensor, number: int, cache: bool = True) -> None:
        """64 tokens behind each of (batch, prompt) ids."""
        out = self.model.generate_text_only(prompts, PROMPT + TOKENS, temperature=0.0, cache_kv=cache)
        assert out.shape[1] == TOKENS

    @torch.no_grad()
    def draw(self, captions: Tensor, number: int) -> None:
        """A frame behind each of (batch, caption) ids."""
        answers = self.model.sample_many(
            [[ids] for ids in captions],
            force_modality_at_start=(0, (SIDE, SIDE)),
            max_length=SIDE**2 - 1,  # the frame ends it
            modality_steps=EVALUATIONS + 1,
            cfg_scale=1.0,
            return_unprocessed_modalities=True,
        )
        assert len(answers) == len(captions)


def tasks(ours: Ours, peer: Peer) -> dict[str, dict[str, Task]]:
    """What is timed beside each other, by what is made and how many at once."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, dict[str, Task]] = {}
    for batch in BATCHES:
        prompts = torch.randint(16, VOCABULARY, (batch, PROMPT), generator=generator)
        captions = prompts[:, :CAPTION].contiguous()
        writers: dict[str, Task] = {"ours": partial(ours.write, prompts), "peer": partial(peer.write, prompts)}
        if batch == 1:
            writers["ours, no cache"] = partial(ours.write_uncached, prompts)
            writers["peer, no cache"] = partial(peer.write, prompts, cache=False)
        found[f"tokens, {batch} at once"] = writers
        drawers: dict[str, Task] = {"ours": partial(ours.draw, captions), "peer": partial(peer.draw, captions)}
        found[f"frames, {batch} at once"] = drawers
    return found


def main() -> None:
    """Print a table and write it as JSON."""
    parser = options(__doc__, "generation", rounds=7, threads=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("what", "who", "a second", "times as fast as the peer")
    results: dict[str, Any] = {}
    for what, makers in tasks(Ours(), Peer()).items():
        made = int(what.split()[1]) * (TOKENS if what.startswith("tokens") else 1)
        seconds = interleaved(makers, arguments.rounds, warm_up=1)
        results[what] = {}
        for who, times in seconds.items():
            speed, factor = made / statistics.median(times), ratio(seconds["peer"], times)
            results[what][who] = {"a_second": speed, "times_as_fast_as_peer": factor}
            table.add_row(what, who, f"{speed:,.1f}", f"{factor:.2f}")
    finish(table, results, arguments.out)


if __name__ == "__main__":
    main()
