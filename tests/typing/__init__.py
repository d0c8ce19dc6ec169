"""What type checkers make of duly. Nothing here runs: `make check` has mypy and pyright read it.

`good.py` must not have an error. In `bad.py` every line marked must have one, from both: mypy reports an ignore that is
not needed because it is strict, pyright because the file says so.
"""
