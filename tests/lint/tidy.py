#!/usr/bin/env python3
"""Runs clang-tidy over our sources: tests/lint/tidy.py [--analyze] [--modules] ROOT [FILE...]

Configures the `lint` preset for its compile commands. A file that passed is remembered under a hash
of everything of ours that its verdict depends on (its own text, that of all our headers it includes,
the compile command, .clang-tidy, the tool's version), in build/lint/tidy-passed, so that only what
changed is looked at again. Warnings of clang itself, thread-safety analysis among them, are errors.

The static analyzer takes three quarters of the time (ten minutes on two cores) and is left out unless
--analyze is given; then it looks at the modules, not at their tests. With --modules, as in ctest, tests are left out
altogether: they take half of the time.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import includes

CLANG_TIDY = "clang-tidy-19"


def options_for(path, analyze):
    return [] if analyze and not path.startswith("tests/") else ["--checks=-clang-analyzer-*"]


class Tidy:
    def __init__(self, root, analyze):
        self.root = root
        self.analyze = analyze
        self.build = root / "build" / "lint"
        self.passed = self.build / "tidy-passed"
        self.texts = {}
        version = subprocess.run([CLANG_TIDY, "--version"], check=True, capture_output=True).stdout
        self.common = version + b"".join(
            (root / path).read_bytes() for path in (".clang-tidy", "tests/.clang-tidy"))

    def configure(self):
        run = subprocess.run(["cmake", "--preset", "lint"], cwd=self.root, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode != 0:
            sys.exit(f"cmake --preset lint failed:\n{run.stdout}")
        self.passed.mkdir(exist_ok=True)
        commands = json.loads((self.build / "compile_commands.json").read_text())
        return {os.path.relpath(entry["file"], self.root): entry["command"] for entry in commands}

    def text(self, path):
        if path not in self.texts:
            file = self.root / path
            self.texts[path] = file.read_bytes() if file.is_file() else None
        return self.texts[path]

    def closure(self, path):
        """`path` and all headers of ours that it includes, directly or not."""
        seen, todo = set(), [path]
        while todo:
            current = todo.pop()
            if current in seen or self.text(current) is None:
                continue
            seen.add(current)
            decoded = self.text(current).decode("utf-8", "replace")
            todo += [quoted for quoted, _ in includes.INCLUDE.findall(decoded) if quoted]
        return sorted(seen)

    def key(self, path, command):
        digest = hashlib.sha256(self.common)
        for part in [command.encode(), repr(options_for(path, self.analyze)).encode(),
                     *(self.text(p) for p in self.closure(path))]:
            digest.update(b"%d:" % len(part) + part)
        return digest.hexdigest()

    def check(self, path, command):
        """Empty if `path` passes, else what is wrong with it; and whether the answer was known."""
        mark = self.passed / self.key(path, command)
        if mark.exists():
            return path, "", True
        run = subprocess.run([CLANG_TIDY, "--quiet", "-p", self.build, *options_for(path, self.analyze), path],
                             cwd=self.root, stdin=subprocess.DEVNULL, text=True, capture_output=True)
        if run.returncode == 0:
            mark.touch()
            return path, "", False
        # stderr repeats how many warnings of foreign headers were suppressed; stdout has the rest.
        return path, run.stdout or run.stderr, False


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if not arguments:
        sys.exit(__doc__)
    root = pathlib.Path(arguments[0]).resolve()
    tidy = Tidy(root, "--analyze" in sys.argv)
    commands = tidy.configure()
    modules = tuple(f"{module}/" for module in includes.ARROWS)
    paths = [path for path in arguments[1:] or sorted(commands) if path.startswith(modules)]
    if "--modules" in sys.argv:
        tests = [path for path in paths if path.startswith("tests/")]
        paths = [path for path in paths if not path.startswith("tests/")]
        print(f"{len(tests)} files of tests/ are left out; to look at them, run it without --modules")
    if not paths:
        sys.exit("compile_commands.json names none of our sources")

    start, failed, known = time.monotonic(), 0, 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        # The long ones first, so that no core is left with one of them at the end.
        paths.sort(key=lambda path: (path.startswith("tests/"), -len(tidy.text(path) or b"")))
        jobs = [pool.submit(tidy.check, path, commands[path]) for path in paths]
        for job in concurrent.futures.as_completed(jobs):
            path, complaint, was_known = job.result()
            known += was_known
            if complaint:
                failed += 1
                print(f"--- {path}\n{complaint}", flush=True)
    print(f"{len(paths)} files, {known} unchanged since they passed, {failed} with findings, "
          f"{time.monotonic() - start:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
