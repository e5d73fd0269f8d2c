"""Run a campaign: python -m tests.fuzz --inputs 1000000 [--seed 7] [--only json] [--levels parsers,stack] [--postgres].

An input that fails is written into the folder of --failures, with the command that feeds it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.fuzz.campaign import Report, Target, prepare_bounds, run
from tests.fuzz.installation import installation, store_folder

LOOK_EVERY = 500
"""So many requests go to one world, which its owner then reads."""
LEVELS = {"parsers": 0.99, "stack": 0.007, "sockets": 0.003}
"""The share of the inputs that each level takes: a whole request takes as long as thirty inputs of a parser."""


def main() -> int:
    options = parse_options()
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fma-fuzz-") as folder,
        installation(options.database, Path(folder)),
    ):
        prepare_bounds()
        reports = [campaign(level, options) for level in options.levels.split(",")]
    print(*reports, sep="\n\n")
    return 1 if any(report.faults or report.shallow for report in reports) else 0


def campaign(level: str, options: argparse.Namespace) -> Report:
    share = LEVELS[level] / sum(LEVELS[each] for each in options.levels.split(","))
    with ExitStack() as stack:
        targets, look = prepared(level, stack)
        return run(
            [target for target in targets if target.name.startswith(options.only)],
            round(options.inputs * share),
            seed=options.seed,
            only_number=options.number,
            failures=options.failures,
            look=look,
            look_every=LOOK_EVERY,
        )


def prepared(level: str, stack: ExitStack) -> tuple[list[Target], Callable[[], object]]:
    """The targets of a level, and the look at what their inputs leave behind. Imported when Django is set up."""
    if level == "parsers":
        from tests.fuzz.parsers import enrol_with_jwt, parser_targets

        stack.enter_context(enrol_with_jwt())
        return parser_targets(), int
    if level == "stack":
        from tests.fuzz.stack import stack_targets

        return stack_targets(store_folder())
    from tests.fuzz.sockets import running, socket_targets

    return socket_targets(store_folder(), stack.enter_context(running()))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Feed hostile inputs to the server."
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="another one at each run")
    parser.add_argument(
        "--only", default="", metavar="TARGET", help="a kind, as json, or one target, as json/weights"
    )
    parser.add_argument("--levels", default=",".join(LEVELS), help=f"some of {','.join(LEVELS)}")
    parser.add_argument("--number", type=int, help="this input alone")
    parser.add_argument(
        "--postgres", dest="database", action="store_const", const="postgres", default="sqlite"
    )
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), metavar="FOLDER")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
