"""`python -m lit_mm` is `lit-mm`."""

from lit_mm.cli import main

main()
