"""The table at the end: min / median / max beside the other program, the ratio, and the bar."""

import statistics
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

OURS, THEIRS = "mesh", "syncthing"


def median(values: List[float]) -> float:
    return statistics.median(values)


def p95(values: List[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


@dataclass(frozen=True)
class Row:
    """A figure of a case, and what it has to keep to: a number of its own, or a share of the other's."""

    case: str
    field: str
    name: str
    unit: str
    scale: float = 1.0
    at_most: Optional[float] = None
    ratio_at_most: Optional[float] = None
    center: Callable[[List[float]], float] = median
    # The other program's case, where it has another name.
    their_case: Optional[str] = None
    # Whether the highest sample is a figure, too.
    worst: bool = False


KIB, MILLI = 1 / 1024, 1000.0


def _costs(case: str, cpu: Optional[float] = None, secs: Optional[float] = None,
           peak: Optional[float] = None) -> List[Row]:
    return [
        Row(case, "secs", "wall", "s", ratio_at_most=secs),
        Row(case, "cpu_both", "cpu", "s", ratio_at_most=cpu),
        Row(case, "peak_mib_a", "peak_a", "MiB", at_most=peak, worst=peak is not None),
        Row(case, "peak_mib_b", "peak_b", "MiB", at_most=peak, worst=peak is not None),
        Row(case, "wire", "wire", "KiB", scale=KIB),
    ]


def _idle(case: str) -> List[Row]:
    return [
        Row(case, "wire_per_min", "wire", "B/min", at_most=1024, worst=True),
        Row(case, "rss_mib_a", "rss_a", "MiB", at_most=64),
        Row(case, "rss_mib_b", "rss_b", "MiB", at_most=64),
        Row(case, "cpu_pct_a", "cpu_a", "%"),
        Row(case, "cpu_pct_b", "cpu_b", "%"),
    ]


ROWS = [
    Row("latency", "secs", "p50", "ms", MILLI, at_most=100),
    Row("latency", "secs", "p95", "ms", MILLI, at_most=300, center=p95),
    Row("latency", "secs", "p50_beside_tuned", "ms", MILLI, their_case="latency-min"),
    *_costs("files", cpu=0.5, secs=1.0),
    *_costs("file", cpu=1.3, peak=96),
    *_idle("idle-empty"),
    *_idle("idle"),
    *_costs("delta-middle"),
    *_costs("rename-file"),
    *_costs("rename-dir"),
    *_costs("restart"),
    *_costs("many"),
]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


class Table:
    def __init__(self, records: List[dict]) -> None:
        self.records = [record for record in records if "error" not in record]
        self.lines: List[List[str]] = [["case", "figure", "n", "mesh min / **median** / max",
                                        "syncthing min / **median** / max", "ratio", "bar", ""]]
        self.figures: Dict[str, str] = {}
        self.missed = 0
        for row in ROWS:
            self._add(row)

    def _values(self, peer: str, case: str, row: Row) -> List[float]:
        return [record[row.field] * row.scale for record in self.records
                if record["peer"] == peer and record["case"] == case and row.field in record]

    def _add(self, row: Row) -> None:
        ours = self._values(OURS, row.case, row)
        theirs = self._values(THEIRS, row.their_case or row.case, row)
        if not ours and not theirs:
            return
        name = f"bench_{row.case}_{row.name}".replace("-", "_")
        for values, suffix in ((ours, ""), (theirs, "_syncthing")):
            if values:
                self.figures[name + suffix] = f"{row.center(values):.6g} {row.unit}"
        if ours and row.worst:
            self.figures[f"{name}_max"] = f"{max(ours):.6g} {row.unit}"
        ratio = None
        if ours and theirs and row.center(theirs) > 0:
            ratio = row.center(ours) / row.center(theirs)
            self.figures[f"{name}_ratio"] = f"{ratio:.3g} x"
        self.lines.append([row.case, f"{row.name} {row.unit}", f"{len(ours)}+{len(theirs)}", _spread(ours, row),
                           _spread(theirs, row), "" if ratio is None else f"{ratio:.2f}x",
                           *self._verdict(row, ours, ratio)])

    def _verdict(self, row: Row, ours: List[float], ratio: Optional[float]) -> List[str]:
        if row.at_most is not None:
            bar, value, limit = f"<= {row.at_most:g} {row.unit}", row.center(ours) if ours else None, row.at_most
        elif row.ratio_at_most is not None:
            bar, value, limit = f"<= {row.ratio_at_most:g}x", ratio, row.ratio_at_most
        else:
            return ["", ""]
        if value is None:
            return [bar, "not measured"]
        self.missed += value > limit
        return [bar, "MISSED" if value > limit else "ok"]

    def print(self) -> None:
        widths = [max(len(line[column]) for line in self.lines) for column in range(len(self.lines[0]))]
        for number, line in enumerate(self.lines):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        print()
        for name, value in self.figures.items():
            print(f"FIGURE {name} {value}")
        print(f"FIGURE bench_bars_missed {self.missed} bars", flush=True)


def _spread(values: List[float], row: Row) -> str:
    if not values:
        return "-"
    return f"{_number(min(values))} / **{_number(row.center(values))}** / {_number(max(values))}"
