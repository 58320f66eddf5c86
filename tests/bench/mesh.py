"""Two devices of a mesh with a Live Folder."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, List

from network import ADDRESSES, Cable
from node import NoAnswer, Node, Pair

PORT = 4711
FOLDER = "Bench"
STEP_MAX = 90.0


class MeshNode(Node):
    def __init__(self, program: Path, place: Path, cable: Cable, end: int) -> None:
        super().__init__(place, cable, end)
        self.program = program
        self.address = f"{ADDRESSES[end]}:{PORT}"

    def command_line(self) -> List[str]:
        return [str(self.program), "daemon", "--stop-with-stdin", "--no-mdns", "--listen", self.address,
                "--name", self.name, "--home", str(self.home)]

    def socket(self) -> Path:
        return self.home / "run" / "api.sock"

    def mesh(self, *words: str) -> Any:
        """Runs a command of the program; the JSON that it prints."""
        command = [str(self.program), "--home", str(self.home), "--json", *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_MAX)
        if done.returncode != 0:
            raise NoAnswer(f"mesh {' '.join(words)} at {self.name}: {done.returncode} {done.stderr.strip()}")
        return json.loads(done.stdout.splitlines()[0]) if done.stdout.strip() else None

    def folder(self) -> dict:
        return self.call("GET", f"/v1/folders/{FOLDER}/status")


class MeshPair(Pair):
    program = "mesh"

    def __init__(self, program: Path, place: Path) -> None:
        cable = Cable()
        super().__init__(MeshNode(program, place, cable, 0), MeshNode(program, place, cable, 1), cable)

    def start(self) -> None:
        a, b = self.a, self.b
        for node in (a, b):
            node.run()
            node.wait_answer("/v1/status")
        code = a.mesh("pair", "--yes", "--no-wait")["code"]
        b.mesh("join", code, "--at", a.address)
        a.mesh("folder", "add", str(a.dir), "--name", FOLDER)
        end = time.monotonic() + STEP_MAX
        while True:
            try:
                b.mesh("folder", "get", FOLDER, str(b.dir))
                return
            except NoAnswer as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"the folder does not become known: {error}; {self.describe()}") from error
            time.sleep(0.05)

    def look(self, node: Node) -> None:
        """A Live Folder notices by itself."""

    def settled(self) -> bool:
        try:
            states = [node.folder() for node in (self.a, self.b)]
        except NoAnswer:
            return False
        return all(state["state"] == "idle" and state["waiting_files"] == 0 for state in states)

    def describe(self) -> str:
        said = []
        for node in (self.a, self.b):
            try:
                said.append(f"{node.name}: {json.dumps(node.call('GET', '/v1/status', timeout=10.0))}")
            except (NoAnswer, RuntimeError) as error:
                said.append(str(error))
            said.append(f"log of {node.name}: {node.log_tail()}")
        return "; ".join(said)
