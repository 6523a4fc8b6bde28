"""Nodes of a Ray cluster, all on this machine, and what may be done to them."""

import contextlib
import ipaddress
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}

os.environ.update(ALONE)  # before Ray is imported, which looks then


class Nodes:
    """A head and more nodes of one CPU each, on loopback."""

    def __init__(self, count=3, *, dashboard=False, **head):
        if (here := str(Path(sys.executable).parent)) not in os.environ["PATH"]:
            os.environ["PATH"] = f"{here}{os.pathsep}{os.environ['PATH']}"  # of the job's `python`
        from ray.cluster_utils import Cluster

        self.folders = []
        # 0: the agent that takes jobs does without for good if its usual port is taken, by another head's agent or by
        # any connection, whose ports are of the same range.
        about = {"include_dashboard": dashboard, "dashboard_agent_listen_port": 0, **head}
        about |= {"num_cpus": 1, "object_store_memory": 100 << 20}
        self.cluster = Cluster(initialize_head=True, head_node_args=about)
        self.others = [self.add() for _ in range(count - 1)]
        self.address = self.cluster.address

    def add(self):
        """One more; in a folder of its own, for nodes that share one unpack the code over each other's."""
        self.folders.append(tempfile.mkdtemp(prefix="ray-"))
        about = {"num_cpus": 1, "object_store_memory": 100 << 20, "temp_dir": self.folders[-1]}
        return self.cluster.add_node(wait=False, **about)

    @property
    def dashboard(self):
        return f"http://{self.cluster.head_node.webui_url}"

    def kill_raylet(self):
        """The node that was added last loses its raylet, as if its machine were gone."""
        node = self.others.pop()
        end(node, "raylet")
        return node

    def kill_head(self):
        for name in ("gcs_server", "raylet"):
            end(self.cluster.head_node, name)

    def workers(self):
        """The processes of the actors that train."""
        pids = []
        for node in (self.cluster.head_node, *self.others):
            if raylet := node.all_processes.get("raylet"):
                pids += [pid for pid in children_of(raylet[0].process.pid) if b"Actor" in read(pid, "cmdline")]
        return pids

    def close(self):
        for node in [*self.others, self.cluster.head_node]:
            with contextlib.suppress(Exception):
                node.kill_all_processes(check_alive=False, allow_graceful=False)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def read(pid, name):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def children_of(parent):
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if read(pid, "stat").rpartition(b")")[2].split()[1:2] == [str(parent).encode()]]


def family_of(pid):
    """The process and all that it has started."""
    return [pid, *(each for child in children_of(pid) for each in family_of(child))]


def listening(pid):
    """The addresses on which the process and what it has started listen for TCP."""
    inodes = set()
    for each in family_of(pid):
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{each}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(entry.readlink()))
    found = set()
    for table, size in (("tcp", 4), ("tcp6", 16)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                numbers = bytes.fromhex(words[1].partition(":")[0])
                in_order = b"".join(numbers[k : k + 4][::-1] for k in range(0, size, 4))
                address = ipaddress.ip_address(in_order)
                found.add(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def end(node, name):
    """Kill a process of a node and bury it: what it has started ends only once nobody bears its id."""
    process = node.all_processes[name][0].process
    process.kill()
    process.wait()


def wait_for(condition, patience_s=300):
    """What the condition gives, once it gives something."""
    until = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
    return found
