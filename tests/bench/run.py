#!/usr/bin/env python3
"""Measures two `mesh` nodes beside two instances of Syncthing, taking turns in the same run.

    tests/bench/run.py                        all cases, about a quarter of an hour on a quiet machine
    tests/bench/run.py --long                 more rounds, and ten times the small files
    tests/bench/run.py --cases file,delta --rounds 1 --size 67108864
    tests/bench/run.py --only mesh --cases latency

Cases: latency, files, file, idle, delta, rename, restart; with --long also many. Two nodes are in network
namespaces of their own, joined by a cable whose bytes are counted. A delta or a rename of the large file
needs `file` first, a rename of the directory or a restart needs `files`: these are measured as well.

Each sample is a line of JSON: `secs` from the change at A until it is visible at B, `cpu_*` seconds of
processor time of each end, `peak_mib_*` its highest resident size meanwhile, `wire` the IP bytes both
ways, `cpu_rest` what else the machine did. Processor time and bytes are counted until both ends are idle.
At the end: a table, and every figure as a line `FIGURE <name> <value> <unit>`.

Ends with 0 when everything was measured, be a bar missed or not; with 1 when something broke or the two
directories were not the same afterwards. Linux; as root, or where users may make namespaces.
"""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, List

from cases import CASES, Bench, Peer, run
from measure import Log
from mesh import MeshPair
from network import become_root_of_own_namespace
from syncthing import WATCH_DELAY, SyncthingPair
from table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("ip", "nsenter", "unshare", "setpriv")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", help="only these, separated by commas")
    parser.add_argument("--rounds", type=int, help="samples of each case and program [3; with --long 5]")
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the large file [1 GiB]")
    parser.add_argument("--count", type=int, default=10_000, help="small files [10000]")
    parser.add_argument("--small", type=int, default=4096, help="bytes of a small file [4096]")
    parser.add_argument("--windows", type=int, help="minutes of watching idle nodes [3; with --long 10]")
    parser.add_argument("--long", action="store_true", help="more rounds, and many files")
    parser.add_argument("--only", choices=("mesh", "syncthing"), help="measure one program")
    parser.add_argument("--mesh", type=Path, default=REPOSITORY / "target/release/mesh", help="the program to measure")
    parser.add_argument("--out", type=Path, help="append the lines of JSON to this file instead")
    chosen = parser.parse_args()
    chosen.rounds = chosen.rounds or (5 if chosen.long else 3)
    chosen.windows = chosen.windows or (10 if chosen.long else 3)
    every = [case for case in CASES if case != "many" or chosen.long]
    chosen.cases = chosen.cases.split(",") if chosen.cases else every
    unknown = sorted(set(chosen.cases) - set(CASES))
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are: {', '.join(CASES)}")
    return chosen


def peers(program: Path, only: str) -> List[Peer]:
    def mesh(place: Path) -> MeshPair:
        return MeshPair(program, place)

    def syncthing(delay: int):
        return lambda place: SyncthingPair(place, delay)

    both = [
        Peer("mesh", mesh, mesh, None, edits=100),
        Peer("syncthing", SyncthingPair, syncthing(WATCH_DELAY), syncthing(1), edits=10),
    ]
    return [peer for peer in both if only in (None, peer.name)]


def require(chosen: argparse.Namespace) -> None:
    tools = TOOLS + (("syncthing",) if chosen.only != "mesh" else ())
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        sys.exit(f"run.py: not installed: {', '.join(missing)}")
    if chosen.only != "syncthing" and not chosen.mesh.is_file():
        sys.exit(f"run.py: {chosen.mesh} is not built (cargo build --release)")


@contextlib.contextmanager
def workplace(program: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, with a copy of the program: a build meanwhile changes nothing."""
    def end(*_) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    work = Path(tempfile.mkdtemp(prefix="mesh-bench-"))
    try:
        if program.is_file():
            shutil.copy2(program, work / "mesh")
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    chosen = arguments()
    require(chosen)
    become_root_of_own_namespace()
    begin = time.monotonic()

    def tell(text: str) -> None:
        print(f"# {time.monotonic() - begin:6.1f} s  {text}", file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        out = stack.enter_context(chosen.out.open("a")) if chosen.out else None
        log = Log(out)
        try:
            work = stack.enter_context(workplace(chosen.mesh))
            bench = Bench(work, log, chosen.cases, chosen.rounds, chosen.size, chosen.count, chosen.small,
                          chosen.windows, tell)
            run(bench, peers(work / "mesh", chosen.only))
        except KeyboardInterrupt:
            tell("interrupted")
            return 130
        Table(log.records).print()
        print(f"FIGURE bench_time {time.monotonic() - begin:.0f} s")
        for failure in log.failures:
            print(f"FAILED: {failure['peer']} {failure['case']}: {failure.get('error') or failure.get('different')}")
        return 1 if log.failures else 0


if __name__ == "__main__":
    sys.exit(main())
