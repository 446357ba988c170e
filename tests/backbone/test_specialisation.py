from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lit_mm.backbone.specialisation import DRAWN, KINDS, READ, TEXT, specialisation, token_kinds


def test_tokens_are_text_read_or_drawn_at_their_time():
    positions = torch.tensor([[2, 3], [5, 6], [8, 9]])
    kinds = token_kinds(positions, torch.tensor([0, 2]), torch.tensor([0.0, 1.0, 0.57]), 12)
    text, early, read, late = TEXT, DRAWN, READ, DRAWN + 5
    assert kinds.tolist() == [text, text, early, early, text, read, read, text, late, late, text, text]
    assert token_kinds(positions[:1], torch.tensor([0]), torch.tensor([1.0]), 4)[2] == KINDS - 1


def test_rates_scores_and_counts_are_those_of_their_formulas():
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 50, (3, KINDS, 7), generator=generator).double()
    found = specialisation(counts)
    for layer in range(3):
        text = counts[layer, TEXT].tolist()
        visual = counts[layer, READ:].sum(0).tolist()
        scores = []
        for expert in range(7):
            r_text, r_visual = text[expert] / sum(text), visual[expert] / sum(visual)
            assert float(found.text_rate[layer, expert]) == pytest.approx(r_text)
            scores.append((r_text - r_visual) / (r_text + r_visual))
        assert found.score[layer].tolist() == pytest.approx(scores)
        assert int(found.text[layer]) == sum(s >= 0.5 for s in scores)
        assert int(found.visual[layer]) == sum(s <= -0.5 for s in scores)
        assert int(found.multimodal[layer]) == sum(abs(s) < 0.5 for s in scores)
        read, drawn = counts[layer, READ], counts[layer, DRAWN:].sum(0)
        assert float(found.agreement[layer]) == pytest.approx(np.corrcoef(read, drawn)[0, 1])


def test_a_text_expert_a_visual_one_a_shared_one_and_a_dead_one():
    counts = torch.zeros(1, KINDS, 4)
    counts[0, TEXT] = torch.tensor([30.0, 0, 10, 0])
    counts[0, READ] = torch.tensor([0.0, 30, 10, 0])
    found = specialisation(counts)
    assert found.score[0, :3].tolist() == [1, -1, 0]
    assert math.isnan(found.score[0, 3])
    assert (int(found.text), int(found.visual), int(found.multimodal), int(found.dead)) == (1, 1, 1, 1)
    assert math.isnan(found.agreement), "nothing was drawn"


def test_variation_over_timesteps_is_none_where_rates_stay_and_known_where_they_alternate():
    same = torch.zeros(1, KINDS, 2)
    same[0, DRAWN:] = torch.tensor([3.0, 1.0]) * torch.arange(1, 11)[:, None]
    assert float(specialisation(same).timestep_variation) == pytest.approx(0, abs=1e-9)
    turns = torch.zeros(1, KINDS, 2)
    turns[0, DRAWN::2] = torch.tensor([3.0, 1.0])
    turns[0, DRAWN + 1 :: 2] = torch.tensor([1.0, 3.0])
    # rates of 0.75 and 0.25 in turn: mean 0.5, deviation 0.25
    assert float(specialisation(turns).timestep_variation) == pytest.approx(0.5)
