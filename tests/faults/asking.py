"""The words with which a long form of these tests is started."""

from __future__ import annotations

import argparse
import math


def asked_for(times: int) -> argparse.Namespace:
    """`--times`, `--seed`, `--seconds` and verbs, from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=times)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("verbs", nargs="*")
    return parser.parse_args()
