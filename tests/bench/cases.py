"""The cases, the same for every program.

A new file or tree is made elsewhere on the same file system and moved in whole, and a program that looks
only now and then is told to look: so these cases do not include the wait of a watcher. `latency` does.
"""

import contextlib
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import data
from measure import Log, Sample
from node import Pair

PARTS = {
    "latency": ["latency"],
    "large": ["file", "delta", "rename"],
    "small": ["files", "rename", "restart"],
    "many": ["many"],
    "idle": ["idle"],
}
CASES = ["latency", "files", "file", "idle", "delta", "rename", "restart", "many"]
EDIT = 200
EDIT_MAX = 120.0
DELTA = data.MIB
IDLE_SETTLE = 30.0
WINDOW = 60.0


@dataclass
class Peer:
    """A program: its name in the records, and how to make two nodes of it below a directory."""

    name: str
    make: Callable[[Path], Pair]
    # With the delay of its watcher as people have it.
    make_default: Callable[[Path], Pair]
    # With the shortest delay that can be set, where there is one to set.
    make_tuned: Optional[Callable[[Path], Pair]]
    edits: int


@dataclass
class Bench:
    work: Path
    log: Log
    cases: List[str]
    rounds: int
    size: int
    count: int
    small: int
    windows: int
    tell: Callable[[str], None]
    sources: Dict[str, Path] = field(default_factory=dict)
    places: int = 0

    def source(self, name: str, make: Callable[[Path], None]) -> Path:
        """Something to sync, made once and copied for each use."""
        if name not in self.sources:
            self.tell(f"making {name}")
            self.sources[name] = self.work / name
            make(self.sources[name])
        return self.sources[name]

    def patience(self, count: int = 0, size: int = 0) -> float:
        return 240.0 + count / 100 + size / (8 * data.MIB)

    @contextlib.contextmanager
    def running(self, make: Callable[[Path], Pair]) -> Iterator[Pair]:
        self.places += 1
        place = self.work / str(self.places)
        place.mkdir()
        try:
            pair = make(place)
            try:
                pair.start()
                yield pair
            finally:
                pair.stop()
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def attempt(self, part: str, peers: List[Peer], work: Callable[[], None]) -> None:
        """A part that breaks is recorded, and the rest goes on."""
        names = "+".join(peer.name for peer in peers)
        self.tell(f"{part}: {names}")
        try:
            work()
        except (RuntimeError, OSError, subprocess.SubprocessError, LookupError, TypeError, ValueError) as error:
            self.log.add({"peer": names, "case": part, "error": f"{type(error).__name__}: {error}"})

    def check(self, pair: Pair, record: dict) -> None:
        different = data.differences(pair.a.dir, pair.b.dir)
        record["equal"] = not different
        if different:
            record["different"] = different[:5]
        self.log.add(record)


def run(bench: Bench, peers: List[Peer]) -> None:
    """All parts that hold a wanted case. Peers take turns, and who is first changes every round."""
    works = {"latency": latency, "large": large, "small": small, "many": many}
    for part, work in works.items():
        if not set(PARTS[part]) & set(bench.cases):
            continue
        for rep in range(1 if part == "many" else bench.rounds):
            for peer in peers if rep % 2 == 0 else peers[::-1]:
                bench.attempt(part, [peer], lambda: work(bench, peer, rep))
    if "idle" in bench.cases:
        bench.attempt("idle", peers, lambda: idle(bench, peers))


def move_in(pair: Pair, source: Path, name: str) -> None:
    os.rename(source, pair.a.dir / name)
    pair.look(pair.a)


def large(bench: Bench, peer: Peer, rep: int) -> None:
    source = bench.source("large", lambda path: data.make_file(path, bench.size, 1))
    with bench.running(peer.make) as pair:
        ready = bench.work / f"large-{rep}-{peer.name}"
        data.copy(source, ready)
        sample = Sample(pair, "file", bytes=bench.size, rep=rep).start()
        move_in(pair, ready, "large")
        patience = bench.patience(size=bench.size)
        sample.visible("the file", lambda: data.size_of(pair.b.dir / "large") == bench.size, patience)
        bench.check(pair, sample.finish_settled(patience))
        if "delta" in bench.cases:
            delta(bench, pair, rep)
        if "rename" in bench.cases:
            rename_file(bench, pair, rep)


def delta(bench: Bench, pair: Pair, rep: int) -> None:
    here, there = pair.a.dir / "large", pair.b.dir / "large"
    sample = Sample(pair, "delta-middle", bytes=bench.size, changed=DELTA, rep=rep).start()
    data.change_middle(here, min(DELTA, bench.size), 100 + rep)
    pair.look(pair.a)
    wanted = data.middle(here, 64)
    patience = bench.patience(size=bench.size)
    sample.visible("the change", lambda: data.middle(there, 64) == wanted, patience)
    bench.check(pair, sample.finish_settled(patience))


def rename_file(bench: Bench, pair: Pair, rep: int) -> None:
    sample = Sample(pair, "rename-file", bytes=bench.size, rep=rep).start()
    os.rename(pair.a.dir / "large", pair.a.dir / "renamed")
    pair.look(pair.a)

    def arrived() -> bool:
        return data.size_of(pair.b.dir / "renamed") == bench.size and data.size_of(pair.b.dir / "large") < 0

    patience = bench.patience(size=bench.size)
    sample.visible("the new name", arrived, patience)
    bench.check(pair, sample.finish_settled(patience))


def sync_files(bench: Bench, pair: Pair, case: str, count: int, size: int, rep: int) -> None:
    """A first sync of a tree of small files, as the directory `set`."""
    source = bench.source(case, lambda path: data.make_files(path, count, size, 2))
    ready = bench.work / f"{case}-{rep}-{pair.program}"
    data.copy(source, ready)
    sample = Sample(pair, case, count=count, small=size, rep=rep).start()
    move_in(pair, ready, "set")
    patience = bench.patience(count=count)
    sample.visible("the files", lambda: data.count_files(pair.b.dir / "set") == count, patience, every=0.2)
    bench.check(pair, sample.finish_settled(patience))


def small(bench: Bench, peer: Peer, rep: int) -> None:
    with bench.running(peer.make) as pair:
        sync_files(bench, pair, "files", bench.count, bench.small, rep)
        if "rename" in bench.cases:
            rename_directory(bench, pair, rep)
        if "restart" in bench.cases:
            restart(bench, pair, rep)


def many(bench: Bench, peer: Peer, rep: int) -> None:
    with bench.running(peer.make) as pair:
        sync_files(bench, pair, "many", 10 * bench.count, 1024, rep)


def rename_directory(bench: Bench, pair: Pair, rep: int) -> None:
    sample = Sample(pair, "rename-dir", count=bench.count, rep=rep).start()
    os.rename(pair.a.dir / "set", pair.a.dir / "moved")
    pair.look(pair.a)
    there = pair.b.dir

    def arrived() -> bool:
        return not (there / "set").exists() and data.count_files(there / "moved") == bench.count

    patience = bench.patience(count=bench.count)
    sample.visible("the new name", arrived, patience, every=0.05)
    bench.check(pair, sample.finish_settled(patience))


def restart(bench: Bench, pair: Pair, rep: int) -> None:
    """B was away: it is back when a file that came meanwhile at either end is at the other."""
    pair.b.stop()
    (pair.a.dir / "from-a").write_text("made at A while B was away")
    (pair.b.dir / "from-b").write_text("made at B while it was away")
    pair.look(pair.a)
    sample = Sample(pair, "restart", count=bench.count, rep=rep).start()
    pair.restart_b()
    ends = (pair.a.dir / "from-b", pair.b.dir / "from-a")
    patience = bench.patience(count=bench.count)
    sample.visible("both new files", lambda: all(data.size_of(path) > 0 for path in ends), patience)
    bench.check(pair, sample.finish_settled(patience))


def latency(bench: Bench, peer: Peer, rep: int) -> None:
    with bench.running(peer.make_default) as pair:
        edit(bench, pair, "latency", -(-peer.edits // bench.rounds), rep)
    if peer.make_tuned is not None:
        with bench.running(peer.make_tuned) as pair:
            edit(bench, pair, "latency-min", -(-peer.edits // bench.rounds), rep)


def edit(bench: Bench, pair: Pair, case: str, edits: int, rep: int) -> None:
    noise = random.Random(rep)
    time.sleep(2)
    for number in range(edits):
        name, body = f"note{number % 5}.txt", noise.randbytes(EDIT)
        load = os.getloadavg()[0]
        begin = time.perf_counter()
        (pair.a.dir / name).write_bytes(body)
        while not _holds(pair.b.dir / name, body):
            if time.perf_counter() - begin > EDIT_MAX:
                raise RuntimeError(f"edit {number} did not arrive in {EDIT_MAX:.0f} s; {pair.describe()}")
            time.sleep(0.001)
        seconds = round(time.perf_counter() - begin, 5)
        bench.log.add({"peer": pair.program, "case": case, "rep": rep, "edit": number, "secs": seconds,
                       "load_before": round(load, 2)})
        time.sleep(noise.uniform(0.05, 0.4))
    bench.check(pair, {"peer": pair.program, "case": f"{case}-check", "rep": rep})


def _holds(path: Path, body: bytes) -> bool:
    try:
        return path.read_bytes() == body
    except OSError:
        return False


def idle(bench: Bench, peers: List[Peer]) -> None:
    """All pairs are idle at the same time, each on a cable of its own: they do not disturb each other."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for peer in peers:
            for count in (0, bench.count):
                bench.tell(f"idle: {peer.name} with {count} files")
                pair = stack.enter_context(bench.running(peer.make_default))
                pairs.append((pair, count))
                if count:
                    sync_files(bench, pair, "files-before-idle", count, bench.small, 0)
        bench.tell(f"idle: {IDLE_SETTLE:.0f} s to settle, then {bench.windows} windows of {WINDOW:.0f} s")
        time.sleep(IDLE_SETTLE)
        for window in range(bench.windows):
            idle_window(bench, pairs, window)
        for pair, count in pairs:
            bench.check(pair, {"peer": pair.program, "case": "idle-check", "count": count})


def idle_window(bench: Bench, pairs: list, window: int) -> None:
    samples = [Sample(pair, "idle" if count else "idle-empty", count=count, rep=window).start(quiet=False)
               for pair, count in pairs]
    time.sleep(WINDOW)
    for sample in samples:
        seconds = sample.elapsed()
        record = sample.finish()
        record["secs"] = round(seconds, 2)
        record["wire_per_min"] = round(record["wire"] * 60 / seconds)
        for end in ("a", "b"):
            record[f"cpu_pct_{end}"] = round(100 * record[f"cpu_{end}"] / seconds, 3)
        bench.log.add(record)
