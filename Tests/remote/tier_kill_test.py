"""A process is killed (SIGKILL) at each step of what its remote tier does: sending, fetching, purging. Then its store is opened again.

usage: tier_kill_test.py [--long]        (environment as tier_test.py)

A step is a system call: on a socket, or one that changes the store's folder. They are counted in a run that ends by itself; then the process is killed
at the first, at one in the middle and at the last of each kind, before, in the midst and after it; with --long at 40 of each kind.
"""
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import servers
import tier_test
from tier_test import BLOCKS, found, identity, offload, prompt, restored, wait_for_sent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHUNKS = BLOCKS // 2
MOMENTS = {
    "connect": ("before", "after"), "sendmsg": ("before", "half", "after"), "recvmsg": ("after",),
    "pwrite": ("before", "half", "after"), "sync": ("before", "after"), "openat": ("before", "after"),
    "mkdirat": ("before", "after"), "unlinkat": ("before", "after"),
}


# ---------------------------------------------------------------- the process that is killed


def say(word):
    print(word, flush=True)


def send(store, arm):
    namespace = store.namespace(identity())
    arm()
    offload(namespace, prompt())
    store.flush()
    say("durable")
    wait_for_sent(store, CHUNKS)
    say("sent")


def fetch(store, arm):
    namespace = store.namespace(identity())
    arm()
    assert found(namespace, prompt()) == BLOCKS
    assert restored(namespace, prompt()) == BLOCKS
    say("restored")
    store.flush()
    say("durable")


def purge(store, arm, tokens=None):
    namespace = store.namespace(identity())
    offload(namespace, prompt())
    store.flush()
    wait_for_sent(store, CHUNKS)
    arm()
    namespace.purge(tokens)
    say("purged")
    servers.wait_for(lambda: store.stats()["remote_purges_pending"] == 0, "confirmed purge")
    say("confirmed")


def purge_prefix(store, arm):
    purge(store, arm, prompt())


SCENARIOS = {"send": send, "fetch": fetch, "purge": purge, "purge_prefix": purge_prefix}


def child(scenario, folder, url):
    shim = ctypes.CDLL(None)
    shim.kill_at_name.restype, shim.kill_at_count.restype = ctypes.c_char_p, ctypes.c_long
    folder = Path(folder)
    with tier_test.machine(folder.parent, folder.name, url) as store:
        SCENARIOS[scenario](store, shim.kill_at_arm)
    counts = {}
    while (name := shim.kill_at_name(len(counts))) is not None:
        counts[name.decode()] = shim.kill_at_count(len(counts))
    say(json.dumps(counts))


# ---------------------------------------------------------------- who kills it


class Machines:
    """One server, and a process beside it that is killed."""

    def __init__(self, server, root, shim):
        self.server, self.root, self.shim = server, root, shim
        self.number = 0
        # What another machine sent.
        self.sent = {}

    def fresh(self):
        self.number += 1
        return self.root / f"store-{self.number}"

    def open(self, folder):
        return tier_test.machine(folder.parent, folder.name, self.server.url())

    def run(self, scenario, folder, kill_at=""):
        """What it said before its end, by itself or by the kill."""
        process = subprocess.run(
            [sys.executable, __file__, "--child", scenario, folder, self.server.url()],
            env={**os.environ, "LD_PRELOAD": str(self.shim), "KILL_AT": kill_at},
            stdout=subprocess.PIPE, timeout=300, text=True,
        )
        if process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(f"{scenario} {kill_at}: status {process.returncode}")
        return process.stdout.split("\n"), process.returncode != 0

    def names(self):
        """The objects there, the identity record aside."""
        return [name for name in self.server.do("KEYS", "kv1:*") if not name.endswith(b":id")]

    def check_server(self):
        """No half of a chunk, nothing that is not what it says."""
        command = Path(os.environ["KVSTORE_PREFIX"]) / "bin/kvstore"
        verified = subprocess.run(
            [command, "remote", "verify", self.server.url()], stdout=subprocess.PIPE, text=True, timeout=120
        )
        assert verified.returncode == 0, verified.stdout

    def prepare(self, scenario):
        self.server.do("FLUSHALL")
        if scenario == "fetch":
            if not self.sent:
                self.run("send", self.fresh())
                self.sent = {name: self.server.do("GET", name) for name in self.server.do("KEYS", "kv1:*")}
            for name, content in self.sent.items():
                self.server.do("SET", name, content)
        return self.fresh()

    def check(self, scenario, folder, said):
        self.check_server()
        getattr(self, f"check_{scenario}")(folder, said)
        self.check_server()

    def check_send(self, folder, said):
        """What was durable is; the rest goes with its next use, and another machine finds it."""
        with self.open(folder) as store:
            namespace = store.namespace(identity())
            local = restored(namespace, prompt())
            assert local == BLOCKS or "durable" not in said
            with namespace.match(prompt()) as match:
                assert match.blocks == local
            servers.wait_for(lambda: len(self.names()) >= local // 2, "chunks that go with a use")
        with self.open(self.fresh()) as other:
            namespace = other.namespace(identity())
            count = found(namespace, prompt())
            assert count >= local // 2 * 2, (count, local)
            assert restored(namespace, prompt()) == count

    def check_fetch(self, folder, said):
        with self.open(folder) as store:
            namespace = store.namespace(identity())
            local = restored(namespace, prompt())
            assert local == BLOCKS or "durable" not in said
            assert found(namespace, prompt()) == BLOCKS
            assert restored(namespace, prompt()) == BLOCKS

    def check_purge(self, folder, said):
        """Once it is reported it is done here, and goes on there; what is gone here never stays there."""
        if "confirmed" in said:
            assert self.names() == []
        with self.open(folder) as store:
            namespace = store.namespace(identity())
            local = restored(namespace, prompt())
            assert "purged" not in said or local == 0, local
            servers.wait_for(lambda: store.stats()["remote_purges_pending"] == 0, "purge that is carried on")
            left = self.names()
            # Chunks whose last block is here may stay.
            assert len(left) <= local // 2, (left, local)
            # It can be filled again.
            offload(namespace, prompt())
            store.flush()
            assert restored(namespace, prompt()) == BLOCKS

    def check_purge_prefix(self, folder, said):
        """Its last block goes, and with it the last chunk."""
        if "confirmed" in said:
            assert len(self.names()) == CHUNKS - 1
        with self.open(folder) as store:
            namespace = store.namespace(identity())
            local = restored(namespace, prompt())
            assert local in ((BLOCKS - 1,) if "purged" in said else (BLOCKS - 1, BLOCKS)), local
            servers.wait_for(lambda: store.stats()["remote_purges_pending"] == 0, "purge that is carried on")
            left = len(self.names())
            assert left == CHUNKS - 1 or left == CHUNKS and local == BLOCKS, (left, local)


def places(count, is_long):
    """Which of so many calls."""
    if count == 0:
        return []
    wanted = min(count, 40 if is_long else 3)
    return sorted({1 + index * (count - 1) // max(1, wanted - 1) for index in range(wanted)})


def main():
    is_long = "--long" in sys.argv
    programs = servers.programs()
    if not programs:
        print("kill: no server can be had, nothing was tested")
        return
    program = next(iter(programs.values()))
    with servers.Servers() as started, tempfile.TemporaryDirectory(prefix="kvstore-kill.") as root:
        shim = Path(root) / "kill_at.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "kill_at.c", "-ldl"], check=True)
        machines = Machines(started.server(program), Path(root), shim)
        for scenario in SCENARIOS:
            said, was_killed = machines.run(scenario, machines.prepare(scenario))
            assert not was_killed
            counts = json.loads(said[-2])
            kill_count = 0
            for kind, moments in MOMENTS.items():
                for index, number in enumerate(places(counts[kind], is_long)):
                    # Each moment of each kind; of each call, all of them only in the long run.
                    for moment in moments if is_long else (moments[index % len(moments)],):
                        folder = machines.prepare(scenario)
                        said, was_killed = machines.run(scenario, folder, f"{kind} {number} {moment}")
                        kill_count += was_killed
                        try:
                            machines.check(scenario, folder, said)
                        except BaseException:
                            print(f"kill: {scenario}, {moment} {kind} {number}, after {said}", file=sys.stderr)
                            raise
            print(f"kill: {scenario}, {kill_count} kills, of {sum(counts.values())} steps", flush=True)
            assert kill_count > 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
