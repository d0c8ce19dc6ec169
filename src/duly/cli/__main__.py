"""`python -m duly.cli` is `duly`."""

from duly.cli._commands import main

if __name__ == "__main__":
    main()
