"""A blank Debian host with a systemd of its own, devices beside it, and the net between them."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, List, Optional, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = REPOSITORY / "target/release"
PACKAGES = REPOSITORY / "target/packages"
NAME = f"meshjourney-{os.getpid()}"
# Nothing of the system has to be fetched by the host itself: it has no way out.
SYSTEM = "systemd,systemd-sysv,dbus,libpam-systemd,passwd"
PATIENCE = 120.0
T = TypeVar("T")


def run(*words: object, quiet: bool = False) -> str:
    """What a command prints, which must end well."""
    ended = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode != 0 and not quiet:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {ended.returncode}\n{ended.stdout}")
    return ended.stdout


def wait_for(what: str, look: Callable[[], Optional[T]], patience: float = PATIENCE) -> T:
    end = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise RuntimeError(f"waited too long for {what}")
        time.sleep(0.1)


def figure(name: str, value: float, unit: str) -> None:
    print(f"FIGURE journey_{name} {value:.1f} {unit}", flush=True)


def remove_stale() -> None:
    """Removes the namespaces that a journey left which was killed."""
    for line in run("ip", "netns", "list").splitlines():
        words = line.split(" ")[0].split("-")
        if words[0] == "meshjourney" and len(words) > 1 and not Path(f"/proc/{words[1]}").exists():
            run("ip", "netns", "del", "-".join(words))


class Net:
    """Hosts at one switch. Two that are `apart` reach everybody but each other."""

    def __init__(self) -> None:
        self.hosts: List[str] = []
        remove_stale()
        run("ip", "netns", "add", NAME)
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "link", "add", "bridge", "type", "bridge")
        self.inside("ip", "addr", "add", "45.64.0.1/24", "dev", "bridge")
        self.inside("ip", "link", "set", "bridge", "up")

    def inside(self, *words: object, quiet: bool = False) -> str:
        """Runs a command at the switch itself, which is a host like others."""
        return run("ip", "netns", "exec", NAME, *words, quiet=quiet)

    def add(self, host: str, address: str, apart: bool = False) -> str:
        namespace, port = f"{NAME}-{host}", f"p{len(self.hosts)}"
        run("ip", "netns", "add", namespace)
        self.hosts.append(namespace)
        run("ip", "-n", NAME, "link", "add", port, "type", "veth", "peer", "name", "host0", "netns", namespace)
        run("ip", "-n", NAME, "link", "set", port, "master", "bridge", "up")
        if apart:
            run("ip", "-n", NAME, "link", "set", port, "type", "bridge_slave", "isolated", "on")
        for words in ("link set lo up", f"addr add {address}/24 dev host0", "link set host0 up"):
            run("ip", "-n", namespace, *words.split())
        return namespace

    def close(self) -> None:
        for namespace in [*self.hosts, NAME]:
            run("ip", "netns", "del", namespace, quiet=True)


class Host:
    """A Debian with nothing on it, which forgets everything when it is gone."""

    def __init__(self, system: Path, namespace: str) -> None:
        self.log = open(PACKAGES / "host.log", "w+b")
        words = ["setpriv", "--pdeathsig=TERM", "systemd-nspawn", "--quiet", "--boot", "--volatile=overlay"]
        words += ["--register=no", "--keep-unit"]
        words += [f"--directory={system}", f"--network-namespace-path=/run/netns/{namespace}", "--console=pipe"]
        words += [f"--bind-ro={PACKAGES}:/packages", f"--hostname={NAME}", f"--machine={NAME}"]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        wait_for("the host to be up", self.is_up)

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            self.log.seek(0)
            raise RuntimeError(f"the host ended: {self.log.read().decode(errors='replace')[-2000:]}")
        return run(*self.enter(), "systemctl", "is-system-running", quiet=True).strip() in ("running", "degraded")

    def enter(self) -> List[str]:
        """The words before a command that has it run inside."""
        process = self.process.pid
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        target = children[0] if children else "0"
        return ["nsenter", f"--target={target}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]

    def run(self, *words: object, quiet: bool = False) -> str:
        return run(*self.enter(), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *words, quiet=quiet)

    def sh(self, script: str, quiet: bool = False) -> str:
        return self.run("sh", "-ec", script, quiet=quiet)

    def close(self) -> None:
        run(*self.enter(), "systemctl", "poweroff", quiet=True)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Device:
    """A node at the switch."""

    def __init__(self, name: str, namespace: str, place: Path) -> None:
        self.place = place / name
        self.place.mkdir()
        self.home = self.place / "home"
        self.log = open(self.place / "log", "wb")
        words = ["ip", "netns", "exec", namespace, str(PROGRAMS / "mesh"), "daemon", "--home", str(self.home)]
        words += ["--stop-with-stdin", "--no-mdns", "--no-upnp", "--listen", "0.0.0.0:4001", "--name", name]
        env = {**os.environ, "MESHWORK_LOG": "info,meshwork=debug,meshwork_host=debug"}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.log, env=env
        )
        wait_for(f"{name} to answer", lambda: self.tries("status"))

    def mesh(self, *words: object) -> List[dict]:
        said = run(PROGRAMS / "mesh", "--home", self.home, "--json", *words)
        return [json.loads(line) for line in said.splitlines()]

    def tries(self, *words: object) -> bool:
        """Whether a command can be done now."""
        try:
            return bool(self.mesh(*words))
        except RuntimeError:
            return False

    def logged(self) -> str:
        """The end of what its node has logged."""
        lines = (self.place / "log").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if "request verb=GET" not in line)[-10_000:]

    def folder(self) -> Path:
        path = self.place / "Papers"
        path.mkdir(exist_ok=True)
        return path

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


def system() -> Path:
    """A Debian as it comes, made once."""
    place = REPOSITORY / "target/journey/debian"
    if not place.exists():
        begin = time.monotonic()
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=place.parent)) / "debian"
        suite = run("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"').strip()
        words = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={SYSTEM}", suite, draft]
        try:
            run(*words)
            draft.rename(place)
        finally:
            shutil.rmtree(draft.parent, ignore_errors=True)
        figure("blank_host_made", time.monotonic() - begin, "s")
    return place
