#!/usr/bin/env python3
"""Checks that the committed demo layout is what its script makes: tests/lint/example.py ROOT"""

import pathlib
import subprocess
import sys
import tempfile


def files(directory):
    return {path.relative_to(directory).as_posix(): path.read_bytes()
            for path in directory.rglob("*") if path.is_file()}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    example = pathlib.Path(sys.argv[1]) / "packaging" / "example"
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([sys.executable, example / "make", made], check=True)
        want, have = files(pathlib.Path(made)), files(example / "layout")
    different = sorted(name for name in want.keys() | have.keys()
                       if want.get(name) != have.get(name))
    if different or not want:
        sys.exit("packaging/example/layout is not what packaging/example/make makes: "
                 + ", ".join(different))
    print(f"{len(want)} files as made")


if __name__ == "__main__":
    main()
