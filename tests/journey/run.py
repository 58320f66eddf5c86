#!/usr/bin/env python3
"""What an operator does, from a blank host to one that is blank again, with the packages of `target/packages`.

    tests/run package && tests/journey/run.py

A Debian with nothing on it boots in a network namespace, with a systemd of its own. There a relay is installed,
configured, started, and probed from another host; it is drained while two devices that can reach each other by no
other way send a file, upgraded, and sees its monthly budget used up. A bootstrap is installed and probed. A user has a
node as a service. In the end all packages are purged, and nothing is left. Needs root.

Every figure is a line `FIGURE journey_<name> <value> <unit>`. Ends with 1 at the first thing that is not as it must be.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from host import PACKAGES, PROGRAMS, Device, Host, Net, figure, run, system, wait_for

MIB = 1 << 20
RELAY = "/var/lib/mesh-relay"
# From a blank host to a relay that was probed.
PROBED_MAX = 300.0


def check(what: str, holds: object, said: object = "") -> None:
    if not holds:
        raise RuntimeError(f"not so: {what}\n{said}")
    print(f"ok: {what}", flush=True)


def set_key(host: Host, home: str, key: str, value: str) -> None:
    """Has a setting say this, as it stands in the file, commented or not."""
    host.sh(f"sed -i 's|^#* *{key} = .*|{key} = {value}|' {home}/config.toml && grep -q '^{key} = ' {home}/config.toml")


def metric(host: Host, name: str, port: int = 4002) -> float:
    """The sum of a metric of the server that runs on the host."""
    told = ask(host, "/metrics", port)
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", told, re.MULTILINE))


def ask(host: Host, path: str, port: int = 4002) -> str:
    # Nothing but bash is there to speak to a port.
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    return host.run("bash", "-c", script, quiet=True).replace("\r", "")


def is_ready(host: Host, port: int = 4002) -> bool:
    return " 200 " in ask(host, "/readyz", port).split("\n", 1)[0]


def exposure(said: str) -> float:
    return float(re.findall(r"Overall exposure level for .*: (\S+) ", said)[0])


def bring_up(host: Host, net: Net, begin: float) -> str:
    """From nothing to a relay that was probed; its address."""
    host.sh("dpkg -i /packages/mesh-relay_*.deb")
    check("installed, it is not enabled", "disabled" in host.run("systemctl", "is-enabled", "mesh-relay", quiet=True))
    host.run("systemctl", "start", "mesh-relay", quiet=True)
    check("without a configuration it does not start", not is_ready(host))
    made = json.loads(host.run("mesh-relay", "init", "--json", "--home", RELAY))
    address = made["address"].replace("192.0.2.1", "45.64.0.2")
    set_key(host, RELAY, "budget_file", '"/var/lib/mesh-relay/budget"')
    # Slow enough to be drained in the middle of a file.
    set_key(host, RELAY, "device_rate", str(4 * MIB))
    host.run("systemctl", "enable", "--now", "mesh-relay")
    wait_for("the relay to be ready", lambda: is_ready(host))
    print(net.inside(PROGRAMS / "mesh-relay", "probe", address, "--data", "4003"), end="")
    seconds = time.monotonic() - begin
    figure("relay_probed", seconds, "s")
    check("from a blank host to a probed relay in five minutes", seconds < PROBED_MAX)
    open_still = exposure(host.run("systemd-analyze", "security", "mesh-relay"))
    figure("relay_exposure", open_still, "of 10")
    check("it is confined", open_still <= 1.5)
    user = owner(host)
    check("it does not run as root", user not in ("", "0"), user)
    return address


def owner(host: Host) -> str:
    """The user that the relay runs as, by number."""
    return host.run("stat", "-c", "%u", f"/proc/{process(host)}").strip()


def process(host: Host) -> str:
    return host.run("systemctl", "show", "--value", "-p", "MainPID", "mesh-relay").strip()


def received(host: Host) -> int:
    """Bytes that the host has received."""
    told = host.run("cat", "/proc/net/dev")
    return int(re.findall(r"host0: *(\d+)", told)[0])


def meet(devices: "list[Device]", address: str) -> None:
    """Two devices meet through the relay, and share a folder."""
    one, other = devices
    one.mesh("relay", "add", address)
    wait_for("a place at the relay", lambda: one.mesh("relay", "ls")[0]["state"] == "in use")
    link = one.mesh("pair", "--yes", "--no-wait")[0]["link"]
    other.mesh("join", link)
    one.mesh("folder", "add", one.folder(), "--name", "Papers")
    wait_for("the folder to be known", lambda: other.tries("folder", "get", "Papers", other.folder()))
    send(devices, "hello", 10, wait=True)


def send(devices: "list[Device]", name: str, size: int, wait: bool) -> bytes:
    """Puts a file into the folder of the first; what must arrive."""
    data = hashlib.shake_256(name.encode()).digest(size)
    draft = devices[0].place / "draft"
    draft.write_bytes(data)
    draft.rename(devices[0].folder() / name)
    if wait:
        arrive(devices, name, data)
    return data


def arrive(devices: "list[Device]", name: str, data: bytes) -> float:
    begin, path = time.monotonic(), devices[1].folder() / name
    is_there = lambda: path.exists() and path.stat().st_size == len(data) and path.read_bytes() == data
    wait_for(f"{name} to arrive", is_there)
    return time.monotonic() - begin


def drain(host: Host, devices: "list[Device]") -> None:
    """The relay is drained in the middle of a file, which arrives in one go."""
    size, before = 48 * MIB, received(host)
    data = send(devices, "large", size, wait=False)
    wait_for("a pair to carry it", lambda: metric(host, "meshwork_relay_data_bytes_total") > 4 * MIB)
    begin = time.monotonic()
    host.run("mesh-relay", "drain", "--home", RELAY)
    carried = metric(host, "meshwork_relay_data_bytes_total")
    is_draining = metric(host, "meshwork_relay_data_draining") == 1
    check("it drains in the middle of the file", is_draining and carried < size, carried)
    arrive(devices, "large", data)
    figure("file_after_drain", time.monotonic() - begin, "s")
    check("nothing of the file was sent twice", received(host) - before < 1.2 * size, received(host) - before)
    state = lambda key: host.run("systemctl", "show", "--value", "-p", key, "mesh-relay").strip()
    wait_for("the relay to end", lambda: state("ActiveState") == "inactive")
    figure("drained", time.monotonic() - begin, "s")
    check("it has ended well", state("Result") == "success" and state("ExecMainStatus") == "0")


def upgrade(host: Host, devices: "list[Device]", net: Net, address: str) -> None:
    """A newer package over the drained relay, which is then the same relay as before; and one while it runs."""
    begin = time.monotonic()
    host.sh("dpkg -i /packages/newer/mesh-relay_*.deb && systemctl start mesh-relay")
    wait_for("the relay to be ready", lambda: is_ready(host))
    figure("upgraded", time.monotonic() - begin, "s")
    check("the newer package is there", "9.9" in host.run("dpkg-query", "-W", "mesh-relay"))
    net.inside(PROGRAMS / "mesh-relay", "probe", address, "--data", "4003")
    begin = time.monotonic()
    send(devices, "after the upgrade", 10, wait=True)
    figure("edit_after_upgrade", time.monotonic() - begin, "s")
    before = process(host)
    data = send(devices, "large again", 24 * MIB, wait=False)
    wait_for("a pair to carry it", lambda: metric(host, "meshwork_relay_data_bytes_total") > 4 * MIB)
    host.sh("dpkg -i /packages/newer/mesh-relay_*.deb")
    check("a relay that runs is restarted", before != process(host))
    figure("file_over_restart", arrive(devices, "large again", data), "s")


def spend(host: Host, devices: "list[Device]") -> None:
    """The bytes of the month are used up in the middle of a file: the relay stays, and the file goes another way."""
    used = metric(host, "meshwork_relay_data_month_bytes")
    check("the bytes of the month are remembered", used >= 24 * MIB, used)
    limit = int(used) + 8 * MIB
    set_key(host, RELAY, "monthly_bytes", str(limit))
    host.run("systemctl", "restart", "mesh-relay")
    wait_for("the relay to be ready", lambda: is_ready(host))
    data = send(devices, "too large", 24 * MIB, wait=False)
    wait_for("the budget to be spent", lambda: metric(host, "meshwork_relay_data_month_bytes") >= limit)
    arrive(devices, "too large", data)
    reasons = metric(host, 'meshwork_relay_data_refused_total{reason="budget"}')
    reasons += metric(host, 'meshwork_relay_data_cut_total{reason="budget"}')
    check("its metrics say why", reasons > 0)
    over = metric(host, "meshwork_relay_data_month_bytes") - limit
    figure("budget_overrun", over, "bytes")
    check("the budget is a hard bound", over <= MIB, over)
    host.run("systemctl", "restart", "mesh-relay")
    wait_for("the relay to be ready", lambda: is_ready(host))
    check("it is spent after a restart, too", metric(host, "meshwork_relay_data_month_bytes") >= limit)


def bring_up_bootstrap(host: Host, net: Net) -> None:
    host.sh("dpkg -i /packages/mesh-bootstrap_*.deb")
    home = "/var/lib/mesh-bootstrap"
    made = json.loads(host.run("mesh-bootstrap", "init", "--json", "--home", home))
    address = made["address"].replace("192.0.2.1/tcp/4001", "45.64.0.2/tcp/4011")
    # The relay has the usual ones.
    set_key(host, home, "listen", '["0.0.0.0:4011"]')
    set_key(host, home, "health", '"127.0.0.1:4012"')
    host.run("systemctl", "enable", "--now", "mesh-bootstrap")
    wait_for("the bootstrap to be ready", lambda: is_ready(host, 4012))
    net.inside(PROGRAMS / "mesh-bootstrap", "probe", address)
    check("the bootstrap is confined", exposure(host.run("systemd-analyze", "security", "mesh-bootstrap")) <= 1.5)


def serve_a_user(host: Host) -> None:
    """A node as a service of a user's systemd: confined, and yet it works with folders wherever they are."""
    host.sh("dpkg -i /packages/mesh_*.deb && useradd -m alice && loginctl enable-linger alice")
    host.sh("mkdir -p /srv/shared /mnt/stick && chown alice /srv/shared")

    def alice(script: str) -> str:
        words = "--reuid=alice --regid=alice --clear-groups env HOME=/home/alice XDG_RUNTIME_DIR=/run/user/1000"
        return host.sh(f"setpriv {words} sh -ec '{script}'")

    wait_for("the manager of the user", lambda: "running" in host.run("systemctl", "is-active", "user@1000", quiet=True)
             or host.sh("test -S /run/user/1000/systemd/private && echo there", quiet=True))
    said = alice("mesh up --install --name attic --no-mdns")
    check("a node is a service", "runs, and will whenever you log in" in said and "confined less" not in said, said)
    unit = "$(basename ~/.config/systemd/user/meshwork-*.service)"
    said = alice(f"systemd-analyze --user security {unit}")
    figure("node_exposure", exposure(said), "of 10")
    check("it is confined", exposure(said) <= 3.0, said)
    node = alice(f"systemctl --user show --value -p MainPID {unit}").strip()
    limits = re.findall(r"Max open files +(\d+) +(\d+)", host.run("cat", f"/proc/{node}/limits"))
    check("it may open as many files as the system allows", limits and limits[0][0] == limits[0][1], limits)
    # Mounted only now, as what is plugged in.
    host.sh("mount -t tmpfs -o uid=alice none /mnt/stick")
    for name, place in (("home", "/home/alice"), ("shared", "/srv/shared"), ("stick", "/mnt/stick")):
        path = f"{place}/Notes"
        alice(f"mkdir {path} && echo hello > {path}/note && mesh folder add {path} --name {name} --wait")
        alice(f"echo more > {path}/more")
        files = lambda: json.loads(alice(f"mesh --json folder status {name}"))["files"] == 2
        wait_for(f"a file written below {place} to be noticed", files)
        print(f"ok: a folder below {place}")
    alice("mesh down --uninstall")
    check("the service is gone", "meshwork" not in alice("systemctl --user list-unit-files"))


def purge(host: Host) -> None:
    host.sh("dpkg --purge mesh mesh-relay mesh-bootstrap")
    left = host.sh("find / -xdev \\( -path /packages -o -path /proc -o -path /home \\) -prune -o "
                   "\\( -name 'mesh' -o -name 'mesh-*' -o -name 'mesh.*' \\) -print")
    check("nothing is left of the packages", not left.strip(), left)
    check("no unit is left", "mesh" not in host.run("systemctl", "list-unit-files", "mesh*", quiet=True))


def main() -> int:
    if os.geteuid() != 0:
        print("tests/journey/run.py: only root may boot a host", file=sys.stderr)
        return 2
    blank = system()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="journey-")))
        net = Net()
        stack.callback(net.close)
        host_net = net.add("relay", "45.64.0.2")
        nets = [net.add(name, f"45.64.0.{last}", apart=True) for name, last in (("desk", 11), ("lap", 12))]
        begin = time.monotonic()
        host = Host(blank, host_net)
        stack.callback(host.close)
        figure("host_booted", time.monotonic() - begin, "s")
        address = bring_up(host, net, begin)
        devices = []
        for name, namespace in zip(("desk", "lap"), nets):
            devices.append(Device(name, namespace, place))
            stack.callback(devices[-1].close)
        try:
            meet(devices, address)
            drain(host, devices)
            upgrade(host, devices, net, address)
            spend(host, devices)
        except RuntimeError:
            for device in devices:
                print(f"-- log of {device.place.name}\n{device.logged()}")
            raise
        bring_up_bootstrap(host, net)
        serve_a_user(host)
        purge(host)
        figure("whole", time.monotonic() - begin, "s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
