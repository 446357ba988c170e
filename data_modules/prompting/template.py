"""How the turns of a conversation are written down, in training and when something is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_modules.prompting.asked_values import text_of
from data_modules.reading.page_parts import Role
from data_modules.reading.turns import turns_of
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Markup, Tokenizer

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
TEXT = "{text}"


@dataclass(frozen=True)
class Template:
    """One line for each role, with `{text}` where the turn's texts and pictures stand.

    Special tokens of the tokenizer, such as `<eos>` or `<|im_end|>`, are such here; in the text of a turn they are
    characters. With the defaults a turn ends with `<eos>`, so that no text can pretend to be another turn.

    Args:
        system: what is said before.
        user: a question.
        assistant: an answer. What follows `{text}` is learned with it, and ends an answer that the model writes.
    """

    system: str = "{text}<eos>"
    user: str = "User: {text}<eos>"
    assistant: str = "Assistant: {text}<eos>"

    def __post_init__(self) -> None:
        for role, line in asdict(self).items():
            if line.count(TEXT) != 1:
                raise Mistake(f"data.template.{role} is '{line}'; write {TEXT} once, where the turn's text stands")

    def around(self, role: Role) -> tuple[Markup, Markup]:
        """What stands before and behind a turn."""
        before, _, behind = {"system": self.system, "user": self.user, "assistant": self.assistant}[role].partition(
            TEXT
        )
        return Markup(before), Markup(behind)

    def ids(self, role: Role, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """Tokens of what stands before and behind a turn."""
        before, behind = self.around(role)
        return tokenizer.markup_ids(before), tokenizer.markup_ids(behind)

    def asked(self, turns: Sequence[tuple[Role, Sequence[Any]]]) -> list[Any]:
        """Texts, markup and pictures of turns, up to where the answer begins."""
        parts: list[Any] = []
        for role, said in turns:
            before, behind = self.around(role)
            parts += [before, *said, behind]
        return [part for part in [*parts, self.around("assistant")[0]] if not isinstance(part, str) or part]

    @property
    def stop(self) -> tuple[str, ...]:
        """Text that ends an answer; none where that is `<eos>`."""
        behind = self.around("assistant")[1].partition("<eos>")[0]
        return (str(behind),) if behind else ()


PLAIN = Template()


def asked_turns(given: Any, pictures: int) -> list[tuple[Role, list[Any]]]:
    """Turns of a prompt of the kind `answer`: roles and parts, a picture being `{"number": …}` among those given.

    Args:
        given: a question, or a list of mappings from a role to what it said.
        pictures: how many come with it.

    Raises:
        Mistake: it is neither, or its `<image>` marks are not as many as its pictures.
    """
    said = [{"user": given}] if isinstance(given, str | int | float) else given
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) and len(one) == 1 for one in said):
        raise Mistake(
            f"'answer' is {given!r}; give a question, or turns such as [{{user: …}}, {{assistant: …}}, {{user: …}}]"
        )
    messages = [{"role": role, "content": text_of(one, role)} for one in said for role in one]
    images = [{"column": "pictures", "number": number} for number in range(pictures)]
    try:
        return [(role, parts) for role, parts in turns_of({"messages": messages, "images": images})]
    except ValueError as error:
        raise Mistake(f"'answer' {error}") from error
