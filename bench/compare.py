#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Print two results of bench/count.py side by side: first the C version's, then the Rust version's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import count, results  # noqa: E402, I001
from xenits.errors import StepError  # noqa: E402


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="bench/compare.py", description=__doc__)
    parser.add_argument("left", type=Path, metavar="A.json")
    parser.add_argument("right", type=Path, metavar="B.json")
    parser.add_argument("--names", nargs=2, default=["C", "Rust"], metavar=("A", "B"), help="what to call the two")
    parser.add_argument("--check", action="store_true", help="fail if an LPI costs more in B than in A")
    args = parser.parse_args()
    try:
        left, right = count.load_result(args.left), count.load_result(args.right)
        print(results.compare(left, right, (args.names[0], args.names[1])))
        errors = count.judge(right, build=None, baseline=left) if args.check else []
    except StepError as error:
        print(f"bench/compare.py: {error.render()}", file=sys.stderr)
        return 1
    for reason in errors:
        print(f"bench/compare.py: {reason}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
