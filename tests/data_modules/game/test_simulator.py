from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_modules.game.simulator import MOVES, TURNS, Case, Simulator, View
from data_modules.reading.actions import action_text
from lit_mm.mistake import Mistake

VIEW = View(image_size=32, unit=32.0, context=4, frame_step=2, horizon=4)


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator("map14", VIEW, gamma=1.5)


@pytest.fixture(scope="module")
def case(simulator: Simulator) -> Case:
    return simulator.case(0, 4, (*TURNS, *MOVES), 3)


def test_a_case_is_the_same_whenever_it_is_played(simulator: Simulator, case: Case) -> None:
    again = Simulator("map14", VIEW, gamma=1.5).case(0, 4, (*TURNS, *MOVES), 3)
    assert torch.equal(again.context, case.context)
    for name, walk in case.walks.items():
        assert torch.equal(again.walks[name].frames, walk.frames)
        assert again.walks[name].poses == walk.poses


def test_all_walks_begin_where_the_context_ends(case: Case) -> None:
    assert set(case.walks) == {"wander", "LEFT", "RIGHT", "W", "S", "A", "D"}
    assert case.context.shape == (4, 3, 32, 32)
    for walk in case.walks.values():
        assert torch.equal(walk.frames[0], case.context[-1])
        assert walk.poses[0] == case.walks["W"].poses[0]
    assert len(case.walks["wander"].frames) == 5
    assert len(case.walks["LEFT"].frames) == 4


def test_turns_turn_as_fast_as_the_engine_does_and_leave_other_pictures(case: Case) -> None:
    # 8 tics at 640 of 65,536 parts of a circle, as Doom turns from the sixth tic on (3.5 degrees).
    turned = {name: case.walks[name].poses[3].angle - case.walks[name].poses[2].angle for name in ("LEFT", "RIGHT")}
    assert (turned["LEFT"] + 180) % 360 - 180 == pytest.approx(28.1, abs=0.1)
    assert (turned["RIGHT"] + 180) % 360 - 180 == pytest.approx(-28.1, abs=0.1)
    assert not torch.equal(case.walks["LEFT"].frames[1], case.walks["RIGHT"].frames[1])


def test_moves_go_their_way_as_the_player_sees_it(simulator: Simulator) -> None:
    """W, S, A, D bring the player further forward, back, left and right than their opposites do."""
    case = simulator.case(2, 0, MOVES, 3)
    start = case.walks["W"].poses[0]
    ahead = math.radians(start.angle)

    def reached(name: str) -> tuple[float, float]:
        pose = case.walks[name].poses[-1]
        x, y = pose.x - start.x, pose.y - start.y
        return x * math.cos(ahead) + y * math.sin(ahead), y * math.cos(ahead) - x * math.sin(ahead)

    assert reached("W")[0] > reached("S")[0] + 10
    assert reached("A")[1] > reached("D")[1] + 10


def test_actions_say_how_the_poses_moved(case: Case) -> None:
    for walk in case.walks.values():
        pairs = zip(walk.poses[:-1], walk.poses[1:], strict=True)
        assert walk.actions == [action_text(a, b, 0.25, 32.0) for a, b in pairs]


def test_a_plan_is_followed_where_there_is_room(simulator: Simulator) -> None:
    case = simulator.case(1, 0, TURNS, 1)
    deltas = [(1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, -0.4), (0.0, 0.0, 0.3)]
    walk = simulator.follow(case.beginning, deltas)
    assert torch.equal(walk.frames[0], case.context[-1])
    assert walk.actions[0] == "action: dx=+1.000, dy=+0.000, dyaw=+0.000, rel_t=+0.250"
    turns = [
        math.radians((b.angle - a.angle + 180) % 360 - 180) for a, b in zip(walk.poses, walk.poses[1:], strict=False)
    ]
    assert turns == pytest.approx([0.0, 0.0, -0.4, 0.3], abs=0.01)


def test_a_plan_is_followed_at_every_frame_of_the_video() -> None:
    simulator = Simulator("map14", replace(VIEW, frame_step=1), gamma=1.5)
    case = simulator.case(1, 0, TURNS, 1)
    walk = simulator.follow(case.beginning, [(0.0, 0.0, 0.2), (0.0, 0.0, -0.3)])
    assert len(walk.frames) == len(walk.poses) == 3
    turns = [(b.angle - a.angle + 180) % 360 - 180 for a, b in zip(walk.poses, walk.poses[1:], strict=False)]
    assert turns == pytest.approx([math.degrees(0.2), math.degrees(-0.3)], abs=0.5)


@pytest.mark.parametrize("what", ["ends", "jumps"])
def test_a_plan_stops_where_the_level_does(what: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first of three steps the level ends, or the player is put elsewhere, as by a teleporter."""
    case = simulator.case(1, 0, TURNS, 1)
    tics, played, make = 8, len(case.beginning.keys), simulator.game

    @contextmanager
    def interrupted(*args: Any) -> Iterator[Any]:
        with make(*args) as game:
            actions = 0

            def act(action: list[float], tics_: int) -> None:
                nonlocal actions
                actions += 1
                game.make_action(action, tics_)
                if actions == played + tics + 3 and what == "jumps":
                    x, y = case.beginning.place
                    game.send_game_command(f"warp {x + 500} {y + 500}")

            yield SimpleNamespace(
                make_action=act,
                get_state=game.get_state,
                is_episode_finished=lambda: what == "ends" and actions >= played + tics + 3,
            )

    monkeypatch.setattr(simulator, "game", interrupted)
    walk = simulator.follow(case.beginning, [(0.5, 0.0, 0.0)] * 3)
    assert len(walk.poses) == len(walk.frames) == 4
    assert walk.poses[0] != walk.poses[1]
    assert walk.poses[1] == walk.poses[2] == walk.poses[3]
    assert torch.equal(walk.frames[1], walk.frames[3])


def test_nothing_leads_through_a_wall(simulator: Simulator) -> None:
    """The same push for long enough ends somewhere: a step of the end is shorter than what was asked for."""
    case = simulator.case(1, 0, TURNS, 1)
    walk = simulator.follow(case.beginning, [(2.0, 0.0, 0.0)] * 40)
    last = math.hypot(walk.poses[-1].x - walk.poses[-2].x, walk.poses[-1].y - walk.poses[-2].y)
    assert last < 32


def test_an_unknown_map_is_named(simulator: Simulator) -> None:
    with pytest.raises(Mistake, match="map99"):
        Simulator("map99", VIEW, gamma=1.5).case(0, 1)
