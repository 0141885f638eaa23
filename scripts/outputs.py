#!/usr/bin/env python3
"""Runs the `console` blocks of Markdown files and pastes their real output in.

    scripts/outputs.py [--bpp-flow target/release/bpp-flow] README.md examples/*/README.md workflows/*/README.md

A line `$ command` is run by bash in a copy of the file's folder (or of the one that `<!-- run: FOLDER -->` names); what
it prints replaces the lines below it. The copy is removed. `python` is $VIRTUAL_ENV's, for pandas.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns("target", ".git", ".venv", ".bpp-flow", "out", "__pycache__", "olympus.txt")


def fill(readme, binary):
    """Rewrites one file."""
    text = readme.read_text()
    named = re.search(r"<!-- run: (\S+) -->", text)
    source = ROOT / named[1] if named else readme.resolve().parent
    with tempfile.TemporaryDirectory(prefix="bpp-outputs.") as top:
        copy = Path(top, "repository")
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        folder = copy / source.relative_to(ROOT)
        if source.parent.name == "workflows":
            shutil.rmtree(folder / "data", ignore_errors=True)  # a command of the guide makes it
        programs = Path(top, "bin")
        programs.mkdir()
        (programs / "bpp-flow").symlink_to(binary)
        (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (programs / "python").chmod(0o755)
        env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        env["PATH"] = f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin"

        def run(command):
            done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, text=True, errors="replace",
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output = done.stdout.replace(f"{folder}/", "").replace(f"{copy}/", "")
            return [f"$ {command}", *(line.rstrip() for line in output.rstrip("\n").splitlines())]

        def block(match):
            commands = [line[2:] for line in match[1].splitlines() if line.startswith("$ ")]
            return "\n".join(["```console", *(line for command in commands for line in run(command)), "```"])

        readme.write_text(re.sub(r"```console\n(.*?)\n```", block, text, flags=re.DOTALL))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bpp-flow", type=Path, default=ROOT / "target/release/bpp-flow")
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    for readme in options.files:
        fill(readme, options.bpp_flow.absolute())


if __name__ == "__main__":
    main()
