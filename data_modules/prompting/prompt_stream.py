"""Prompts that come line by line, each asked before the next is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch.utils.data import IterableDataset

from data_modules.prompting.prompt_items import STDIN, is_prompt
from data_modules.prompting.prompts import Prompts
from data_modules.prompting.steering import Steering
from data_modules.prompting.template import Template
from lit_mm.mistake import Mistake
from lit_mm.prompt import FailedPrompt, Prompt


class PromptStream(IterableDataset[Prompt | FailedPrompt]):
    """Lines of YAML or JSON mappings as in `Prompts`. A line that cannot be read is a prompt that failed.

    Args:
        lines: read no further than the prompt that is asked for.
        image_size: side to which pictures are brought.
        steering: what keys mean.
        template: how turns of conversations are written down.
    """

    def __init__(
        self,
        lines: Iterable[str],
        image_size: int,
        steering: Steering | None = None,
        template: Template | None = None,
    ) -> None:
        self.lines, self.image_size, self.steering, self.template = lines, image_size, steering, template

    def __len__(self) -> int:
        """More than there will be: Lightning reads one batch ahead of a loader whose length it does not know."""
        return 2**40

    def __iter__(self) -> Iterator[Prompt | FailedPrompt]:
        taken: set[str] = set()
        for number, line in enumerate(filter(is_prompt, self.lines)):
            try:
                prompts = Prompts(STDIN, self.image_size, self.steering, line, number, self.template)
                names = {item.name.casefold() for item in prompts.items}
                if twice := names & taken:
                    raise Mistake(f"an earlier prompt is named '{min(twice)}' too; names become file names")
            except Mistake as error:
                yield FailedPrompt(str(number), f"prompt '{number}': {error}", str(number))
                continue
            taken |= names
            for i in range(len(prompts)):
                yield prompts[i]
