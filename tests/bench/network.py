"""Two network namespaces joined by a cable, so that every byte between two nodes can be counted."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Tuple

CABLE = "cable0"
ADDRESSES = ("10.99.0.1", "10.99.0.2")
HARDWARE = ("02:00:00:00:00:01", "02:00:00:00:00:02")
# The counters of an interface include this header; what is compared is IP.
ETHERNET_HEADER = 14


def become_root_of_own_namespace() -> None:
    """Anybody but root starts this program again in a user namespace, where namespaces may be made."""
    if os.geteuid() != 0:
        command = ["unshare", "--user", "--map-root-user", "--", sys.executable, *sys.argv]
        os.execvp(command[0], command)


class Cable:
    """Both ends have no name and are held by one process each, so nothing outlives the program."""

    def __init__(self) -> None:
        self.holders: List[subprocess.Popen] = []
        try:
            for _ in ADDRESSES:
                self.holders.append(_hold_namespace())
            self._lay()
        except BaseException:
            self.close()
            raise

    def _lay(self) -> None:
        far = self.holders[1].pid
        _run([*self.enter(0), *f"ip link add {CABLE} address {HARDWARE[0]} type veth".split(),
              *f"peer name {CABLE} address {HARDWARE[1]} netns {far}".split()])
        for end in range(2):
            # Neither ARP nor IPv6 is to add packets of its own.
            for words in (
                f"link set {CABLE} addrgenmode none",
                f"addr add {ADDRESSES[end]}/24 dev {CABLE}",
                "link set lo up",
                f"link set {CABLE} up",
                f"neigh replace {ADDRESSES[1 - end]} lladdr {HARDWARE[1 - end]} dev {CABLE} nud permanent",
            ):
                _run([*self.enter(end), "ip", *words.split()])

    def enter(self, end: int) -> List[str]:
        """What a command line begins with to run at one end; the process stays the same one."""
        return ["nsenter", f"--net=/proc/{self.holders[end].pid}/ns/net", "--"]

    def wire(self) -> int:
        """IP bytes both ways so far. A packet that the kernel keeps joined has one header."""
        received, sent = self._counters(0, CABLE)
        return sum(length - ETHERNET_HEADER * packets for length, packets in (received, sent))

    def loopback(self) -> int:
        """IP bytes that stayed within an end; those never were on the wire."""
        return sum(length - ETHERNET_HEADER * packets
                   for length, packets in (self._counters(end, "lo")[0] for end in range(2)))

    def _counters(self, end: int, interface: str) -> Tuple[Tuple[int, int], Tuple[int, int]]:
        """(bytes, packets) received and sent."""
        for line in Path(f"/proc/{self.holders[end].pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == interface:
                values = [int(number) for number in numbers.split()]
                return (values[0], values[1]), (values[8], values[9])
        raise RuntimeError(f"there is no interface {interface} at end {end}")

    def close(self) -> None:
        for holder in self.holders:
            holder.stdin.close()
            holder.wait(10)
        self.holders.clear()


def _hold_namespace() -> subprocess.Popen:
    """A process in a namespace of its own that ends when this program does."""
    holder = subprocess.Popen(["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE, start_new_session=True)
    own = os.readlink("/proc/self/ns/net")
    end = time.monotonic() + 10
    while holder.poll() is None and time.monotonic() < end:
        if os.readlink(f"/proc/{holder.pid}/ns/net") != own:
            return holder
        time.sleep(0.005)
    holder.kill()
    raise RuntimeError("no network namespace can be made here")


def _run(command: List[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
