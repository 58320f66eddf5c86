"""Two instances of Syncthing with a shared folder.

All is as the package has it, except: no discovery, relays, NAT mapping, reports or upgrades; addresses are
given; it does not lower its own priority; a lost connection is tried again after 2 s.
"""

import json
import subprocess
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Dict, List

from network import ADDRESSES, Cable
from node import START_MAX, NoAnswer, Node, Pair

PORT = 22000
FOLDER = "bench"
KEY = "benchmark"
# Its own default.
WATCH_DELAY = 10
# So long that only the scans count which are asked for.
NO_WATCH_DELAY = 3600
OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "announceLANAddresses": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "stunKeepaliveStartS": "0",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "setLowPriority": "false",
    "reconnectionIntervalS": "2",
}


class SyncthingNode(Node):
    def __init__(self, place: Path, cable: Cable, end: int) -> None:
        super().__init__(place, cable, end)
        self.address = f"tcp://{ADDRESSES[end]}:{PORT}"
        self.home.mkdir()
        subprocess.run(["syncthing", "generate", "--home", str(self.home), "--no-default-folder"], check=True,
                       env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=START_MAX)
        self.config = xml.parse(self.home / "config.xml")
        self.id = self.config.getroot().find("device").get("id")

    def command_line(self) -> List[str]:
        return ["syncthing", "serve", "--home", str(self.home), "--no-browser", "--no-restart"]

    def environment(self) -> Dict[str, str]:
        return {**super().environment(), "STNOUPGRADE": "1", "STNODEFAULTFOLDER": "1"}

    def socket(self) -> Path:
        return self.home / "api.sock"

    def headers(self) -> Dict[str, str]:
        return {"X-API-Key": KEY}

    def configure(self, nodes: List["SyncthingNode"], watch_delay: int) -> None:
        root = self.config.getroot()
        options = root.find("options")
        for tag, text in {**OPTIONS, "listenAddress": self.address}.items():
            for old in options.findall(tag):
                options.remove(old)
            xml.SubElement(options, tag).text = text
        for tag in ("gui", "device", "folder"):
            for old in root.findall(tag):
                root.remove(old)
        gui = xml.SubElement(root, "gui", enabled="true", tls="false")
        xml.SubElement(gui, "address").text = str(self.socket())
        xml.SubElement(gui, "apikey").text = KEY
        folder = xml.SubElement(root, "folder", id=FOLDER, label=FOLDER, path=str(self.dir), type="sendreceive",
                                rescanIntervalS="3600", fsWatcherEnabled="true", fsWatcherDelayS=str(watch_delay))
        for node in nodes:
            device = xml.SubElement(root, "device", id=node.id, name=node.name)
            xml.SubElement(device, "address").text = node.address
            xml.SubElement(folder, "device", id=node.id)
        self.config.write(self.home / "config.xml")

    def scan(self) -> None:
        self.call("POST", f"/rest/db/scan?folder={FOLDER}", timeout=3600.0)

    def folder(self) -> dict:
        return self.call("GET", f"/rest/db/status?folder={FOLDER}")

    def is_connected(self) -> bool:
        connections = self.call("GET", "/rest/system/connections")["connections"]
        return any(one["connected"] for one in connections.values())


class SyncthingPair(Pair):
    program = "syncthing"

    def __init__(self, place: Path, watch_delay: int = NO_WATCH_DELAY) -> None:
        cable = Cable()
        try:
            super().__init__(SyncthingNode(place, cable, 0), SyncthingNode(place, cable, 1), cable)
            for node in (self.a, self.b):
                node.configure([self.a, self.b], watch_delay)
        except BaseException:
            cable.close()
            raise

    def start(self) -> None:
        for node in (self.a, self.b):
            node.run()
        for node in (self.a, self.b):
            node.wait_answer("/rest/system/ping")
        end = time.monotonic() + START_MAX
        while not (self.settled() and self.a.is_connected() and self.b.is_connected()):
            self.check_alive()
            if time.monotonic() > end:
                raise RuntimeError(f"the two instances do not connect; {self.describe()}")
            time.sleep(0.1)

    def look(self, node: Node) -> None:
        node.scan()

    def settled(self) -> bool:
        try:
            a, b = self.a.folder(), self.b.folder()
        except NoAnswer:
            return False
        same = ("localFiles", "localDirectories", "localBytes")
        return (a["state"] == b["state"] == "idle" and a["needTotalItems"] == b["needTotalItems"] == 0
                and all(a[field] == b[field] for field in same) and b["localFiles"] == b["globalFiles"])

    def describe(self) -> str:
        said = []
        for node in (self.a, self.b):
            try:
                said.append(f"{node.name}: {json.dumps(node.folder())}")
            except NoAnswer as error:
                said.append(f"{error}; its log ends: {node.log_tail()}")
        return "; ".join(said)
