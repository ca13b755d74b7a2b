"""Hostile files found by coverage: ``python tests/faults/fuzz.py TARGET --seconds 60``.

Needs atheris. What is found is kept as a file; give such files instead of ``--seconds`` to see the
traceback again. No test of its own: ``test_fuzzing.py`` tries a few inputs of each target.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

#: Seconds by the clock that one input may take, those in C code included (of its own, in Python,
#: it has those of ``hostile``); bytes that one may have.
SECONDS, LONGEST = 120, 1 << 15


class Search:
    """A folder to read inputs in, and what was found so far.

    Args:
        target: Of ``fuzz_targets.TARGETS``.
        folder: Empty, for the files that are read.
        keep: Where inputs that broke something are kept.
        seconds: When it ends.
    """

    def __init__(self, target: Any, folder: Path, keep: Path, seconds: float) -> None:
        from fuzz_inputs import prepared

        self.target, self.keep, self.seconds = target, keep, seconds
        self.root, self.seeds = prepared(target, folder)
        self.inputs, self.start = 0, time.monotonic()
        self.found: dict[str, Path] = {}

    def __call__(self, data: bytes) -> None:
        """Try an input; the same fault at the same line is kept once."""
        from fuzz_inputs import try_input

        if time.monotonic() - self.start > self.seconds:
            self.end()
        self.inputs += 1
        try:
            try_input(self.target, self.root, data)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if f"{os.sep}graphmoe{os.sep}" in f.filename] or frames
            fault = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
            if fault not in self.found:
                name = hashlib.sha256(data).hexdigest()[:12]
                self.found[fault] = self.keep / name
                self.found[fault].write_bytes(data)
                print(f"FOUND {fault}: {error!s:.300} ({self.found[fault]})", flush=True)

    def end(self) -> None:
        """Say what was found, and leave: the engine has no end of its own."""
        seconds = time.monotonic() - self.start
        print(f"{self.inputs} inputs in {seconds:.0f} s: {len(self.found)} faults", flush=True)
        for fault, path in self.found.items():
            print(f"  {fault}: {path}", flush=True)
        os._exit(bool(self.found))


def main() -> None:
    """Fuzz one target, or try files again."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("target")
    command.add_argument("files", nargs="*", type=Path, help="inputs to try again")
    command.add_argument("--seconds", type=float, default=60)
    found = Path(tempfile.gettempdir()) / "graphmoe-fuzzing"
    command.add_argument("--keep", type=Path, default=found, help=f"for what is found ({found})")
    options = command.parse_args()
    keep = options.keep.resolve() / options.target
    files = [path.read_bytes() for path in options.files]
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed; install it with: pip install atheris")
    with atheris.instrument_imports(include=["graphmoe", "yaml"], enable_loader_override=False):
        from fuzz_inputs import mutated, try_input
        from fuzz_targets import TARGETS
    from hostile import WORDS

    import graphmoe.checkpoint.store

    # Nobody else writes here: what looks damaged is not waited for.
    graphmoe.checkpoint.store.time = SimpleNamespace(sleep=lambda seconds: None)  # type: ignore

    if options.target not in TARGETS:
        sys.exit(f"expected one of {', '.join(TARGETS)}, got {options.target!r}")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        search = Search(TARGETS[options.target], Path(folder), keep, options.seconds)
        for data in files:
            print(try_input(search.target, search.root, data))
        if files:
            return
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(search.seeds):
            (corpus / str(number)).write_bytes(data)
        words = Path(folder) / "words"
        lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS if len(word) < 60)
        words.write_text("".join(f'"{line}"\n' for line in lines))

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            source = random.Random(seed)
            if source.random() < 0.4:
                return atheris.Mutate(data, most)
            return mutated(data, source.choice)[:most]

        limits = [f"-timeout={SECONDS}", "-rss_limit_mb=4096", f"-max_len={LONGEST}"]
        keep.mkdir(parents=True, exist_ok=True)
        limits += [f"-artifact_prefix={keep}{os.sep}"]  # of what the engine itself ends for
        engine = [*limits, f"-dict={words}", "-verbosity=0", "-print_final_stats=0"]
        atheris.Setup(["fuzz", *engine, str(corpus)], search, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
