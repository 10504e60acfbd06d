#!/usr/bin/env python3
"""Checks that every C++ source is formatted as .clang-format says: tests/lint/format.py ROOT

`tests/lint/format.py ROOT --fix` formats them.
"""

import subprocess
import sys

import includes

CLANG_FORMAT = "clang-format-19"


def main():
    if len(sys.argv) < 2 or sys.argv[2:] not in ([], ["--fix"]):
        sys.exit(__doc__)
    root = includes.pathlib.Path(sys.argv[1])
    files = [str(path) for path in includes.sources(root)]
    if not files:
        sys.exit(f"{root}: no sources found")
    mode = ["-i"] if sys.argv[2:] else ["--dry-run", "-Werror", "--ferror-limit=3"]
    run = subprocess.run([CLANG_FORMAT, "--style=file", *mode, *files], cwd=root)
    if run.returncode == 0:
        print(f"{len(files)} files are formatted")
    sys.exit(run.returncode)


if __name__ == "__main__":
    main()
