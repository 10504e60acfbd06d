#!/usr/bin/env python3
"""Checks shell scripts, Python scripts and man pages: tests/lint/scripts.py ROOT

Shell: accepted by `sh -n` (or bash, as the first line says) and without findings of shellcheck.
Python: compiles. Manual pages: no warnings of man(1) and mandoc(1).
"""

import os
import pathlib
import subprocess
import sys

FOLDERS = [".ci", "packaging", "tests", "tools", "fs", "store", "fetch"]


def first_line(path):
    with open(path, "rb") as file:
        return file.readline(200).decode("utf-8", "replace").strip()


def run(*command, **more):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **more)
    return done.returncode, done.stdout.strip()


def check_shell(path, shell):
    code, output = run(shell, "-n", path)
    if code != 0:
        yield output
    code, output = run("shellcheck", "-s", shell, path)
    if code != 0:
        yield output
    if not os.access(path, os.X_OK):
        yield f"{path}: has a #! line and is not executable"


def check_python(path):
    try:
        compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        yield f"{path}: {error}"


def check_man(path):
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"))
    if done.returncode != 0 or done.stderr:
        yield f"{path}: {done.stderr or done.returncode}"
    code, output = run("mandoc", "-Tlint", "-W", "warning", path)
    if code != 0:
        yield output


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[1])
    complaints, counts = [], {"shell": 0, "python": 0, "man": 0}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            line = first_line(path)
            if line.startswith("#!"):
                words = line[2:].replace("/usr/bin/env ", "").split()
                program = os.path.basename(words[0]) if words else ""
            else:
                program = ""
            if program in ("sh", "bash", "dash"):
                counts["shell"] += 1
                complaints += check_shell(path, program)
            elif program.startswith("python") or path.suffix == ".py":
                counts["python"] += 1
                complaints += check_python(path)
            elif path.suffix in (".1", ".5", ".8") and "man" in path.parts:
                counts["man"] += 1
                complaints += check_man(path)
    empty = [kind for kind, count in counts.items() if count == 0]
    if empty:
        complaints.append(f"nothing found to check: {', '.join(empty)}")
    if complaints:
        sys.exit("\n".join(complaints))
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + " files: no findings")


if __name__ == "__main__":
    main()
