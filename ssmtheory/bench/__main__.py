"""`python -m ssmtheory.bench`: hand over to the runner, which stores the run and prints the table."""

from __future__ import annotations

if __name__ == "__main__":
    from ssmtheory.runner import main

    raise SystemExit(main("ssmtheory.bench"))
