"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lit_mm.cli import LitCLI


@pytest.fixture(scope="module")
def build_once() -> Iterator[None]:
    """The parser is built once a file: it takes longer than to parse."""
    build, built = LitCLI.setup_parser, {}

    def setup_parser(cli: LitCLI, *args: object) -> None:
        if not built:
            before = set(vars(cli))
            build(cli, *args)
            built.update({name: value for name, value in vars(cli).items() if name not in before})
        vars(cli).update(built)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LitCLI, "setup_parser", setup_parser)
        yield
