"""A running program at one end of the cable, and what both programs have in common."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from network import Cable

START_MAX = 60.0
LOG_TAIL = 600


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class NoAnswer(RuntimeError):
    """The program does not answer, or not as it should."""


class Node:
    """One end: a home, a synced directory, a process, and a socket that answers HTTP."""

    def __init__(self, place: Path, cable: Cable, end: int) -> None:
        self.name = "ab"[end]
        self.cable, self.end = cable, end
        self.home = place / f"{self.name}-home"
        self.dir = place / f"{self.name}-data"
        self.log = place / f"{self.name}.log"
        self.process: Optional[subprocess.Popen] = None
        self.dir.mkdir(parents=True)

    def command_line(self) -> List[str]:
        raise NotImplementedError

    def socket(self) -> Path:
        raise NotImplementedError

    def headers(self) -> Dict[str, str]:
        return {}

    def environment(self) -> Dict[str, str]:
        # Nothing of the person who runs this is read or written.
        return {**os.environ, "HOME": str(self.home)}

    def run(self) -> None:
        # setpriv: a harness that is killed takes its processes along.
        command = [*self.cable.enter(self.end), "setpriv", "--pdeathsig", "KILL", "--", *self.command_line()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment(), stdin=subprocess.PIPE,
                                            stdout=log, stderr=log, start_new_session=True)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120.0) -> Any:
        connection = _UnixConnection(self.socket(), timeout)
        try:
            headers = {"Content-Type": "application/json", **self.headers()}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {path} at {self.name}: {error!r}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise NoAnswer(f"{method} {path} at {self.name}: {answer.status} {text.decode(errors='replace').strip()}")
        return json.loads(text) if text.strip() else None

    def wait_answer(self, path: str) -> None:
        end = time.monotonic() + START_MAX
        while True:
            try:
                self.call("GET", path, timeout=5.0)
                return
            except NoAnswer as error:
                if self.process is None or self.process.poll() is not None or time.monotonic() > end:
                    raise NoAnswer(f"{self.name} does not start: {error}; its log ends: {self.log_tail()}") from error
            time.sleep(0.02)

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""

    def stop(self) -> None:
        """Asks the process to end; makes it end when it does not."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                # Its session is its own, so this is the process and its children only.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
            process.stdin.close()


class Pair:
    """Two connected nodes of one program that share an empty directory."""

    program = ""

    def __init__(self, a: Node, b: Node, cable: Cable) -> None:
        self.a, self.b, self.cable = a, b, cable

    def pids(self) -> Dict[str, int]:
        return {node.name: node.pid for node in (self.a, self.b) if node.process is not None}

    def start(self) -> None:
        """Starts, connects and shares."""
        raise NotImplementedError

    def look(self, node: Node) -> None:
        """Tells a node that its directory has changed, where the program is not left to notice by itself."""
        raise NotImplementedError

    def settled(self) -> bool:
        """Whether both ends say that nothing is left to do."""
        raise NotImplementedError

    def describe(self) -> str:
        """What both ends say about themselves, for an error."""
        raise NotImplementedError

    def restart_b(self) -> None:
        self.b.run()

    def check_alive(self) -> None:
        for node in (self.a, self.b):
            if node.process is not None and node.process.poll() is not None:
                raise RuntimeError(f"{self.program} ended at {node.name} with {node.process.returncode}; "
                                   f"its log ends: {node.log_tail()}")

    def stop(self) -> None:
        try:
            self.b.stop()
        finally:
            try:
                self.a.stop()
            finally:
                self.cable.close()
