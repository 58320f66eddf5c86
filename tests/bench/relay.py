#!/usr/bin/env python3
"""Measures the data port of a relay beside `socat -b 65536`, taking turns in the same run.

    cargo build --release -p meshwork-relay --example data_port
    tests/bench/relay.py [--rounds 5] [--size BYTES] [--port PROGRAM]

Two processes move memory to memory over loopback through either of them. Each sample is a line of JSON, and every
figure a line `FIGURE <name> <value> <unit>`: lowest, median and highest of MiB/s and of processor seconds for a GiB.
Ends with 1 when a bar is missed: 0.7 x the throughput of socat, and one second for a GiB.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List, Tuple

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = 1 << 20
GIB = 1 << 30
TICK = os.sysconf("SC_CLK_TCK")
Ends = Tuple[socket.socket, socket.socket]


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def move(ends: Ends, size: int) -> float:
    """Sends `size` bytes from a process of its own and receives all of them; the seconds it took."""
    sender, receiver = ends
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        receiver.close()
        block = bytes(BLOCK)
        for _ in range(size // BLOCK):
            sender.sendall(block)
        sender.shutdown(socket.SHUT_WR)
        os._exit(0)
    sender.close()
    buffer, got = bytearray(BLOCK), 0
    while count := receiver.recv_into(buffer):
        got += count
    seconds = time.monotonic() - begin
    os.waitpid(child, 0)
    receiver.close()
    if got != size:
        raise RuntimeError(f"{got} of {size} bytes arrived")
    return seconds


def through_relay(relay: subprocess.Popen, port: int) -> Ends:
    relay.stdin.write("\n")
    relay.stdin.flush()
    ends = []
    for token in relay.stdout.readline().split():
        end = socket.create_connection(("127.0.0.1", port))
        end.sendall(b"\x01" + bytes.fromhex(token))
        ends.append(end)
    for end in ends:
        if end.recv(1) != b"\x01":
            raise RuntimeError("the relay refused a channel")
    return ends[0], ends[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def connect(port: int) -> socket.socket:
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def measure_socat(size: int) -> Tuple[float, float]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        target = f"TCP:127.0.0.1:{server.getsockname()[1]}"
        socat = subprocess.Popen(["socat", "-b", "65536", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", target])
        try:
            sender = connect(port)
            receiver, _ = server.accept()
            seconds = move((sender, receiver), size)
            # A process that has ended has no time to read; its parent is told what it used.
            _, _, usage = os.wait4(socat.pid, 0)
            return seconds, usage.ru_utime + usage.ru_stime
        finally:
            socat.returncode = 0


def measure_relay(relay: subprocess.Popen, port: int, size: int) -> Tuple[float, float]:
    ends = through_relay(relay, port)
    before = processor_time(relay.pid)
    seconds = move(ends, size)
    return seconds, processor_time(relay.pid) - before


def figure(name: str, values: List[float], unit: str) -> float:
    for word, of in (("min", min), ("median", statistics.median), ("max", max)):
        print(f"FIGURE relay_{name}_{word} {of(values):.3f} {unit}")
    return statistics.median(values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=2 * GIB)
    parser.add_argument("--port", type=Path, default=target / "release/examples/data_port")
    options = parser.parse_args()
    relay = subprocess.Popen([options.port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(relay.stdout.readline())
        runs: List[Tuple[str, Callable[[], Tuple[float, float]]]] = [
            ("socat", lambda: measure_socat(options.size)),
            ("data", lambda: measure_relay(relay, port, options.size)),
        ]
        rates: dict = {"socat": [], "data": []}
        costs: dict = {"socat": [], "data": []}
        for number in range(options.rounds):
            for name, run in runs if number % 2 == 0 else reversed(runs):
                seconds, cpu = run()
                rates[name].append(options.size / seconds / BLOCK)
                costs[name].append(cpu * GIB / options.size)
                print(json.dumps({"through": name, "secs": round(seconds, 3), "cpu": round(cpu, 3)}), flush=True)
    finally:
        relay.stdin.close()
        relay.kill()
        relay.wait()
    rate = {name: figure(f"{name}_rate", values, "MiB/s") for name, values in rates.items()}
    cost = {name: figure(f"{name}_cpu", values, "s/GiB") for name, values in costs.items()}
    print(f"FIGURE relay_data_share {rate['data'] / rate['socat']:.3f} x")
    return 0 if rate["data"] >= 0.7 * rate["socat"] and cost["data"] <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
