"""Prompts out of the game itself: what is seen on maps never trained on, keys that are then held, and what follows."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from data_modules.action_video import ActionVideoSource
from data_modules.base import DocumentDataModule
from data_modules.game.episode import BUTTONS
from data_modules.game.simulator import Case, held_out
from data_modules.mixing.mixture import Mixture
from data_modules.prompting.loader import PROMPTS
from lit_mm.mistake import Mistake
from lit_mm.prompt import Prompt


class SimulatedDataModule(DocumentDataModule):
    """Video with actions, of which `predict` asks for roll-outs that the simulator knows the truth of.

    For every case a prompt per entry of `keys`, held for `steps` steps, and one (`wander`) that goes on as the scripted
    player does. The actions are those that the player truly took: a wall in the way is in their numbers.
    """

    def mix(
        self,
        maps: tuple[str, ...] = ("map05", "map11", "map14", "map17"),
        cases: int = 1,
        keys: tuple[str, ...] = ("W", "S", "A", "D", "LEFT", "RIGHT"),
        steps: int = 4,
        gamma: float = 1.5,
        game_seed: int = 0,
        **mixed: Any,
    ) -> Mixture:
        """What the model is trained on, for `maps` to be checked against.

        Args:
            maps: of Freedoom 2, none of which may be trained on.
            cases: per map.
            keys: each a key, or several joined by `+`.
            steps: of every walk.
            gamma: brightens the game, as in the recipe of the training data.
            game_seed: of the cases.
            mixed: of `ActionVideoSource`.

        Raises:
            Mistake: there is no such key.
        """
        for key in keys:
            for one in key.split("+"):
                if one not in BUTTONS:
                    raise Mistake(f"data.keys has '{key}'; the game has the keys {', '.join(BUTTONS)}")
        self.maps, self.cases, self.keys, self.steps = maps, cases, keys, steps
        self.gamma, self.game_seed = gamma, game_seed
        self.source = ActionVideoSource(**mixed)
        return Mixture.of_one(self.source)

    def predict_dataloader(self) -> DataLoader:
        """Roll-outs, with the truth beside them.

        Raises:
            Mistake: a map is trained on.
        """
        held = [tuple(key.split("+")) for key in self.keys]
        prompts: list[Prompt] = []
        for simulator in held_out(self.maps, self.source, self.image_size, self.gamma, self.game_seed):
            for number in range(self.cases):
                prompts += as_prompts(simulator.case(number, self.steps, held, self.steps), number)
        return DataLoader(prompts, batch_size=PROMPTS, collate_fn=list)  # type: ignore[arg-type]


def as_prompts(case: Case, number: int) -> list[Prompt]:
    """One for each walk of a case; all with the same noise.

    Args:
        case: of the simulator.
        number: of the case on its map.
    """
    group = f"{case.level}-{number}"
    return [
        Prompt(
            f"{group}-{name}",
            "frames",
            tuple(case.context),
            tuple(walk.actions),
            seed=number,
            truth=walk.frames[1:],
            group=group,
            settings={"map": case.level, "case": number, "walk": name},
        )
        for name, walk in case.walks.items()
    ]
