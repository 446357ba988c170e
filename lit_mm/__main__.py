"""`lit-mm` and `python -m lit_mm`. PyTorch and Lightning are imported only once a command asks for them."""

from __future__ import annotations

import gc
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
    gc.disable()  # imports leave no garbage, and looking for it takes a fifth of their time
    from lit_mm.cli import main as run

    gc.freeze()  # nor is what they made ever to be looked at again
    gc.enable()
    run()


if __name__ == "__main__":
    main()
