"""Makes every golden in this folder: `python make.py [s4d scan lm ops]`; with `--check` compares instead of writing.

See README.md for the environment, the files and the tolerances.
"""

import argparse
import importlib

import torch

from common import Writer

PARTS = ("scan", "s4d", "lm", "ops")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--check", action="store_true", help="recompute and compare with the files")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}")
    torch.set_num_threads(1)
    writer = Writer(check=args.check)
    refs = {}
    if "scan" in args.parts:
        import upstream

        refs = upstream.functions()
    for part in args.parts:
        importlib.import_module({"lm": "mamba_lm"}.get(part, part)).make(writer, refs)
    print(f"{writer.files} goldens" + (f" agree; worst difference {writer.worst:.1e}" if args.check else " written"))


if __name__ == "__main__":
    main()
