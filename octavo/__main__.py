"""`python -m octavo`: the command line, with user errors as one line and the right exit code."""

from octavo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
