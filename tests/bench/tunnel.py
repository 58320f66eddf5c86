#!/usr/bin/env python3
"""Measures a tunnel to a service beside `ssh -L`, taking turns in the same run.

    cargo build --release
    tests/bench/tunnel.py [--rounds 5] [--size BYTES] [--mesh PROGRAM]

Both lead a port on loopback to a program on the same machine: two nodes of one mesh, or ssh and sshd with a key made for this.
Each sample is a line of JSON, and every figure a line `FIGURE <name> <value> <unit>`: lowest, median and highest of MiB/s, of
processor seconds of both ends for a GiB, and of microseconds for a byte there and back. Ends with 1 when a bar is missed:
0.7 x the processor time of ssh, and 1.2 x what it adds to a round trip.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Tuple

from relay import BLOCK, GIB, REPOSITORY, connect, free_port, move, processor_time

TRIPS = 2_000


class Nodes:
    """Two nodes of one mesh."""

    def __init__(self, mesh: Path, place: Path, target: int) -> None:
        self.mesh, self.place, self.daemons = mesh, place, []
        for name in ("here", "there"):
            words = ["daemon", "--stop-with-stdin", "--no-mdns", "--listen", f"127.0.0.1:{free_port()}", "--name", name]
            command = [mesh, "--home", place / name, *words]
            with (place / f"{name}.log").open("w") as log:
                self.daemons.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log))
            self.wait(name, "status")
        link = self.ask("there", "pair", "--yes", "--no-wait")["link"]
        self.ask("here", "join", link)
        self.ask("there", "service", "offer", "sink", str(target))
        self.port = self.wait("here", "open", "there:sink", "--background")["port"]

    def ask(self, name: str, *words: str) -> dict:
        command = [self.mesh, "--home", self.place / name, "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"mesh {' '.join(words)}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[0])

    def wait(self, name: str, *words: str) -> dict:
        end = time.monotonic() + 30
        while True:
            try:
                return self.ask(name, *words)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def cpu(self) -> float:
        return sum(processor_time(daemon.pid) for daemon in self.daemons)

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()


class Ssh:
    """ssh and sshd, each as its own user would run them."""

    def __init__(self, place: Path, target: int) -> None:
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
        shutil.copy(place / "user.pub", place / "allowed")
        Path("/run/sshd").mkdir(exist_ok=True)
        port, self.port = free_port(), free_port()
        settings = {
            "Port": port,
            "ListenAddress": "127.0.0.1",
            "HostKey": place / "host",
            "AuthorizedKeysFile": place / "allowed",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
        }
        (place / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self.sshd = subprocess.Popen([shutil.which("sshd"), "-D", "-f", place / "sshd_config"], stderr=subprocess.DEVNULL)
        connect(port).close()
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ExitOnForwardFailure=yes", "LogLevel=ERROR"]
        words = [word for option in options for word in ("-o", option)]
        lead = f"127.0.0.1:{self.port}:127.0.0.1:{target}"
        command = ["ssh", *words, "-N", "-i", place / "user", "-p", str(port), "-L", lead, "127.0.0.1"]
        self.ssh = subprocess.Popen(command)
        connect(self.port).close()

    def cpu(self) -> float:
        """Of ssh, and of sshd with all that it started."""
        pids, found = {self.ssh.pid, self.sshd.pid}, True
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
        while found:
            found = {pid for pid, parent in parents.items() if parent in pids and pid not in pids}
            pids |= found
        return sum(processor_time(pid) for pid in pids)

    def close(self) -> None:
        self.ssh.kill()
        self.ssh.wait()
        self.sshd.terminate()
        self.sshd.wait()


def ends(server: socket.socket, port: int) -> Tuple[socket.socket, socket.socket]:
    near = connect(port)
    far, _ = server.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def round_trip(pair: Tuple[socket.socket, socket.socket]) -> float:
    """Microseconds for a byte there and one back, half of the time more and half of it less."""
    near, far = pair
    child = os.fork()
    if child == 0:
        near.close()
        while byte := far.recv(1):
            far.sendall(byte)
        os._exit(0)
    far.close()
    times: List[float] = []
    for _ in range(TRIPS):
        begin = time.perf_counter()
        near.sendall(b"x")
        near.recv(1)
        times.append((time.perf_counter() - begin) * 1e6)
    near.close()
    os.waitpid(child, 0)
    return statistics.median(times)


def figure(name: str, values: List[float], unit: str) -> float:
    for word, of in (("min", min), ("median", statistics.median), ("max", max)):
        print(f"FIGURE tunnel_{name}_{word} {of(values):.3f} {unit}")
    return statistics.median(values)


def measure(server: socket.socket, ways: dict, rounds: int, size: int) -> Dict[str, Dict[str, List[float]]]:
    found: Dict[str, Dict[str, List[float]]] = {name: {"rate": [], "cpu": [], "trip": []} for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            way, of = ways[name], found[name]
            of["trip"].append(round_trip(ends(server, way.port if way else server.getsockname()[1])))
            if way is None:
                continue
            before = way.cpu()
            seconds = move(ends(server, way.port), size)
            of["rate"].append(size / seconds / BLOCK)
            of["cpu"].append((way.cpu() - before) * GIB / size)
            print(json.dumps({"through": name, **{key: round(values[-1], 3) for key, values in of.items()}}), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=GIB)
    parser.add_argument("--mesh", type=Path, default=target / "release/mesh")
    options = parser.parse_args()
    if shutil.which("sshd") is None or shutil.which("ssh") is None:
        print("please install openssh-server and openssh-client", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ways: dict = {"nothing": None}
        try:
            ways["mesh"] = Nodes(options.mesh, Path(place), port)
            ways["ssh"] = Ssh(Path(place), port)
            # ssh tries its port once while it comes up.
            server.accept()[0].close()
            found = measure(server, ways, options.rounds, options.size)
        finally:
            for way in filter(None, ways.values()):
                way.close()
    middle = {name: {key: figure(f"{name}_{key}", values, unit) for key, unit in (("rate", "MiB/s"), ("cpu", "s/GiB"), ("trip", "us")) if (values := of[key])} for name, of in found.items()}
    cpu = middle["mesh"]["cpu"] / middle["ssh"]["cpu"]
    bare = middle["nothing"]["trip"]
    added = (middle["mesh"]["trip"] - bare) / (middle["ssh"]["trip"] - bare)
    print(f"FIGURE tunnel_cpu_share {cpu:.3f} x")
    print(f"FIGURE tunnel_added_trip_share {added:.3f} x")
    return 0 if cpu <= 0.7 and added <= 1.2 else 1


if __name__ == "__main__":
    sys.exit(main())
