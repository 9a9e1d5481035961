"""`make bench`: what an event costs the rules, and the engine beside a plain Faust agent; `ARGS=user`: what it costs of
one user who does very much. `ARGS=--help` says what to choose from."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from tests.bench import catalogue_cost, one_user, simple_job


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("both", "catalogue", "simple", "user"),
        default="both",
        help="catalogue: three rules and the whole catalogue, without Kafka; simple: our engine and Faust, on Kafka; "
        "user: one user's thousands of coupons, without Kafka",
    )
    parser.add_argument(
        "--households", type=int, default=300, help="whose purchases (default %(default)s, as the demo)"
    )
    parser.add_argument("--turns", type=int, default=3, help="times each catalogue runs (default %(default)s)")
    parser.add_argument("--events", type=int, default=400_000, help="events for our engine (default %(default)s)")
    parser.add_argument("--faust-events", type=int, default=40_000, help="events for Faust (default %(default)s)")
    parser.add_argument("--ours-only", action="store_true", help="leave Faust out")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # new topics have no leaders for a moment
    if options.what == "user":
        return one_user.main(options)
    right = True
    if options.what != "simple":
        right = catalogue_cost.main(options) == 0
    if options.what != "catalogue":
        right = asyncio.run(simple_job.run(options)) == 0 and right
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
