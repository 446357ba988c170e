"""What a library's class refuses is a mistake; an error within a class of this program is one of the program."""

from __future__ import annotations

import pytest
from torch import nn

from lit_mm.command_line.constructors import made
from lit_mm.command_line.parser import ConfigParser
from lit_mm.mistake import Mistake
from lit_mm.vision.pixels import Pixels


def parsed(value: str, kind: type) -> object:
    """What a configuration makes of a value."""
    parser = ConfigParser(exit_on_error=False)
    parser.add_argument("--part", type=kind)
    return parser.instantiate(parser.parse_args([f"--part={value}"])).part


def test_a_librarys_class_that_refuses_is_named() -> None:
    with pytest.raises(Mistake, match="^Conv2d refuses its arguments: in_channels must be divisible by groups$"):
        parsed(
            "{class_path: torch.nn.Conv2d, init_args: {in_channels: 3, out_channels: 2, kernel_size: 1, groups: 2}}",
            nn.Module,
        )


def test_of_parts_within_parts_the_one_that_refuses_is_named() -> None:
    layer = "{class_path: torch.nn.TransformerEncoderLayer, init_args: {d_model: 3, nhead: 2}}"
    with pytest.raises(Mistake, match="^TransformerEncoderLayer refuses its arguments: embed_dim must be divisible by"):
        parsed(
            f"{{class_path: torch.nn.TransformerEncoder, init_args: {{encoder_layer: {layer}, num_layers: 1}}}}",
            nn.Module,
        )


def test_an_error_within_a_class_of_this_program_is_passed_on() -> None:
    with pytest.raises(TypeError, match="not supported between instances"):
        made(Pixels, 64, None)


class Named:
    """Its arguments are called as those of what makes it."""

    def __init__(self, kind: str, args: int = 0, kwargs: int = 0) -> None:
        self.given = (kind, args, kwargs)


def test_names_of_arguments_are_those_of_the_class() -> None:
    part = parsed(f"{{class_path: {__name__}.Named, init_args: {{kind: one, args: 2, kwargs: 3}}}}", Named)
    assert isinstance(part, Named)
    assert part.given == ("one", 2, 3)
