"""`python -m diffinst`: the command line where no `diffinst` script is on the path."""

from __future__ import annotations

from diffinst.cli import main

main()
