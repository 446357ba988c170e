"""`lit-mm` and `python -m lit_mm`. PyTorch and Lightning are imported only once a command asks for them."""

from __future__ import annotations

import sys

from lit_mm.command_line.commands import first_screen
from lit_mm.command_line.hidden_packages import check_packages
from lit_mm.mistake import ends_with_a_sentence


def main() -> None:
    """Run the program on the arguments of the command line."""
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(first_screen(), end="")
        return
    with ends_with_a_sentence():
        check_packages()
    from lit_mm.cli import main as run

    run()


if __name__ == "__main__":
    main()
