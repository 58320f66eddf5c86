"""What is measured: time, processor time, memory, and bytes on the wire."""

import json
import os
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, TextIO, Tuple

from node import Pair

TICK = os.sysconf("SC_CLK_TCK")
# A sample begins when less of the machine than this is busy, or after some seconds anyway.
QUIET_SHARE = 0.35
QUIET_WAIT = 4.0
# What a node does after it says that it is done counts, too.
LINGER = 1.0


class Log:
    """One JSON object a line, for each sample."""

    def __init__(self, out: Optional[TextIO]) -> None:
        self.out = out
        self.records: List[dict] = []

    def add(self, record: dict) -> None:
        record.setdefault("when", int(time.time()))
        self.records.append(record)
        line = json.dumps(record)
        if self.out is None:
            print(line, flush=True)
        else:
            self.out.write(line + "\n")
            self.out.flush()

    @property
    def failures(self) -> List[dict]:
        return [record for record in self.records if "error" in record or record.get("equal") is False]


def wait_for(what: str, seconds: float, look: Callable[[], bool], every: float, pair: Pair) -> None:
    """Waits until `look` is true; the error says what both ends tell about themselves."""
    end = time.monotonic() + seconds
    while not look():
        pair.check_alive()
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds:.0f} s for {what}; {pair.describe()}")
        time.sleep(every)


def process_tree(pid: int) -> List[int]:
    children: Dict[int, List[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo.extend(children.get(current, []))
    return found


def _stat(pid: int) -> List[str]:
    """The fields after the name of the program: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree, with the children that have ended."""
    return sum(sum(int(ticks) for ticks in _stat(one)[11:15]) for one in process_tree(pid)) / TICK


def _status_mib(pid: int, field: str) -> float:
    total = 0
    for one in process_tree(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
    return total / 1024


def resident_mib(pid: int) -> float:
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """The highest resident size since `reset_peak`."""
    return _status_mib(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    for one in process_tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


def machine_seconds() -> Tuple[float, float]:
    """Busy and idle processor seconds of the whole machine since it started."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = numbers[3] + numbers[4]
    return (sum(numbers[:8]) - idle) / TICK, idle / TICK


def wait_quiet() -> float:
    """Gives other work a moment to end; the share of the machine that is busy then."""
    end = time.monotonic() + QUIET_WAIT
    while True:
        busy, idle = machine_seconds()
        time.sleep(1)
        busy_after, idle_after = machine_seconds()
        share = (busy_after - busy) / max(1e-9, busy_after - busy + idle_after - idle)
        if share <= QUIET_SHARE or time.monotonic() >= end:
            return share


class Sample:
    """Measures a pair from `start` to `finish`; `visible` notes when the other end has it."""

    def __init__(self, pair: Pair, case: str, **fields) -> None:
        self.pair = pair
        self.record = {"peer": pair.program, "case": case, **fields}

    def start(self, quiet: bool = True) -> "Sample":
        if quiet:
            self.record["busy_before"] = round(wait_quiet(), 2)
        self.record["load_before"] = round(os.getloadavg()[0], 2)
        for pid in self.pair.pids().values():
            reset_peak(pid)
        self.cpu = {end: cpu_seconds(pid) for end, pid in self.pair.pids().items()}
        self.wire = self.pair.cable.wire(), self.pair.cable.loopback()
        self.machine = machine_seconds()[0]
        self.begin = time.perf_counter()
        return self

    def elapsed(self) -> float:
        return time.perf_counter() - self.begin

    def visible(self, what: str, look: Callable[[], bool], seconds: float, every: float = 0.02) -> None:
        wait_for(what, seconds, look, every, self.pair)
        self.record["secs"] = round(self.elapsed(), 4)

    def finish(self) -> dict:
        record, window = self.record, self.elapsed()
        both = 0.0
        for end, pid in self.pair.pids().items():
            used = cpu_seconds(pid) - self.cpu.get(end, 0.0)
            both += used
            record[f"cpu_{end}"] = round(used, 3)
            record[f"peak_mib_{end}"] = round(peak_mib(pid), 1)
            record[f"rss_mib_{end}"] = round(resident_mib(pid), 1)
        record["cpu_both"] = round(both, 3)
        record["wire"] = self.pair.cable.wire() - self.wire[0]
        record["wire_lo"] = self.pair.cable.loopback() - self.wire[1]
        record["cpu_rest"] = round(max(0.0, machine_seconds()[0] - self.machine - both), 2)
        record["window_s"] = round(window, 2)
        record["load_after"] = round(os.getloadavg()[0], 2)
        return record

    def finish_settled(self, seconds: float) -> dict:
        """Finishes when both ends have nothing left to do."""
        wait_for("both ends to be idle", seconds, self.pair.settled, 0.1, self.pair)
        self.record["settled_s"] = round(self.elapsed(), 3)
        time.sleep(LINGER)
        return self.finish()
