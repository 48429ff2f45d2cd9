"""Fuzz every decoder of bytes that come from outside, guided by coverage (atheris, libFuzzer).

    python tools/fuzz/fuzz.py [--seconds 60] [--corpus FOLDER] [TARGET ...]      `make fuzz` does this

Targets are those of tests/decoders.py, all by default; each runs in a process of its own. A decoder that raises what
it may not, or takes longer than a second for 64 KiB, ends the run with status 1; libFuzzer leaves the input in a file
of the current folder. Without --corpus, what was learnt is thrown away.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 1 << 16
SLOW_S = 1


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Run one target in this process, which libFuzzer ends."""
    atheris: Any = import_module("atheris")  # an extra: Linux only

    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["swarmp2p"]):
        from tests.decoders import DECODERS
    decoder = next(decoder for decoder in DECODERS if decoder.name == name)
    for number, sample in enumerate(decoder.samples):
        (corpus / f"sample-{number}").write_bytes(sample)

    def once(data: bytes) -> None:
        try:
            decoder.run(data)
        except decoder.raises:
            pass

    flags = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={SLOW_S}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", str(corpus)], once)
    atheris.Fuzz()


def names() -> list[str]:
    """All targets."""
    sys.path.insert(0, str(ROOT))
    from tests.decoders import DECODERS

    return [decoder.name for decoder in DECODERS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--corpus", type=Path, help="a folder in which each target keeps what it has learnt")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz(options.targets[0], options.corpus, options.seconds)
        return
    known = names()
    for name in options.targets:
        if name not in known:
            parser.error(f"no target {name}; there are {', '.join(known)}")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as passing:
        for name in options.targets or known:
            corpus = (options.corpus or Path(passing)) / name
            corpus.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, "--here", name, "--corpus", str(corpus)]
            run = subprocess.run(
                [*command, "--seconds", str(options.seconds)], capture_output=True, text=True, check=False
            )
            units = [
                line.split()[-1] for line in run.stderr.splitlines() if "number_of_executed_units" in line
            ]
            print(
                f"{name:<22} {'ok' if run.returncode == 0 else 'FAILED':<7} {' '.join(units)} inputs",
                flush=True,
            )
            if run.returncode:
                failed.append(name)
                print(run.stdout[-2000:], run.stderr[-4000:], sep="\n", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}. The inputs are in crash-* and timeout-* files here")


if __name__ == "__main__":
    main()
