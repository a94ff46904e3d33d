#!/usr/bin/env python3
"""The client of Valkey and Redis against real servers, and what can go wrong with them. See run."""
import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import servers as remote_servers
from proxy import Proxy
from servers import Refused, Servers, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
# A call has to end within its deadline; a loaded machine may wake us late.
LATE = 20
SIZE = 300_000
OBJECT = f"whole({SIZE})"


SECOND = ["calls", "killed_and_stopped", "users", "cluster"]


class Probe:
    """The client in a process of its own: one call at a time."""

    def __init__(self, program, url, environment=None, **options):
        arguments = [f"{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [program, url, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def begin(self, command, milliseconds, *arguments):
        self.limit = milliseconds
        self.process.stdin.write(" ".join(map(str, (command, milliseconds, *arguments))) + "\n")
        self.process.stdin.flush()

    def end(self):
        """What came of the call, without the time; the time is checked here."""
        line = self.process.stdout.readline().rstrip("\n")
        assert line, f"the client ended with {self.process.wait()}"
        elapsed, answer = line.split(" ", 1)
        assert int(elapsed) <= LATE * self.limit, f"a call with {self.limit} ms took {elapsed} ms: {answer}"
        return answer

    def __call__(self, *arguments):
        self.begin(*arguments)
        return self.end()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


class Cases:
    def __init__(self, program, server_program, servers, long_form):
        self.program, self.server_program, self.servers, self.long = program, server_program, servers, long_form
        self.random = random.Random(1)

    def probe(self, url, **options):
        return Probe(self.program, url, **options)

    def server(self, *settings, **options):
        return self.servers.server(self.server_program, *settings, **options)

    def _recovers(self, probe, *call, answer):
        """What failed a moment ago works again, by itself."""
        wait_for(lambda: probe(*call) == answer, f"{call} that answers {answer}")

    # ------------------------------------------------------------ one server

    def calls(self):
        """Each call, and its edges."""
        server = self.server()
        with self.probe(server.url()) as probe:
            assert probe("exist", 9000, "a", "b") == "ok 00"
            assert probe("put", 9000, "a", SIZE, 60000, 5) == "ok stored"
            assert probe("put", 9000, "a", SIZE, 60000, 5) == "ok existed"
            assert probe("exist", 9000, "a", "b", "a") == "ok 101"
            assert probe("get", 9000, "a", "b", "a") == f"ok {OBJECT} absent {OBJECT}"
            assert probe("skip", 9000, "a", "b") == "ok skipped absent"
            assert probe("put", 9000, "empty", 0, "-", 1) == "ok stored"
            assert probe("get", 9000, "empty") == "ok whole(0)"
            assert probe("put", 9000, "large", 40_000_000, "-", 100) == "ok stored"
            assert probe("get", 20000, "large", "a") == f"ok whole(40000000) {OBJECT}"
            # Lives grow and never shrink; what has no end keeps none.
            assert probe("extend", 9000, 3_600_000, "a", "large", "none") == "ok "
            assert server.do("PTTL", "a") > 3_000_000
            assert probe("extend", 9000, 1000, "a") == "ok "
            assert server.do("PTTL", "a") > 3_000_000
            assert server.do("PTTL", "large") == -1
            names = [f"list:{number}" for number in range(3000)]
            assert server.do("MSET", *(part for name in names for part in (name, "x"))) == "OK"
            server.do("MSET", "list*", "x", "lisu", "x", "list: with a space", "x")
            assert probe("list", 9000, "list:").startswith("ok 3000 ")
            assert probe("many", 9000, 3000, "list:") == "ok 3000"
            assert probe("remove", 9000, "a", "b", "large") == "ok 2"
            server.do("LPUSH", "foreign", "x")
            assert "refused" in probe("get", 9000, "foreign")
            text = probe("information", 9000)
            assert "role=master" in text and "policy=noeviction" in text, text

    def killed_and_stopped(self):
        """The server is killed, and stopped, before and in the middle of each call."""
        server = self.server()
        calls = {
            "exist": ("exist", 300, "there"),
            "many": ("many", 300, 2000, "x:"),
            "get": ("get", 300, *["there"] * 20),
            "put": ("put", 300, "new", 60_000_000, "-", 5),
            "list": ("list", 300, "t"),
            "information": ("information", 300),
        }
        with self.probe(server.url()) as probe:
            def put():
                return probe("put", 9000, "there", 4_000_000, "-", 3) in ("ok stored", "ok existed")

            for name, call in calls.items():
                wait_for(put, "server that takes an object")
                server.stop()
                answer = probe(*call)
                assert "timedOut" in answer, (name, answer)
                assert "damaged" not in answer
                server.go_on()
                wait_for(put, "server that goes on")
                server.kill()
                answer = probe(*call)
                assert "unreachable" in answer or "timedOut" in answer, (name, answer)
                server.start()
            rounds = 12 if not self.long else 200
            for number in range(rounds):
                call = list(calls[self.random.choice(list(calls))])
                call[1] = 1000
                wait_for(put, "server that takes an object")
                server.do("DEL", "new")
                probe.begin(*call)
                time.sleep(self.random.uniform(0, 0.02))
                if number % 2:
                    server.kill()
                else:
                    server.stop()
                answer = probe.end()
                assert "damaged" not in answer and "twice" not in answer, answer
                if number % 2:
                    server.start()
                else:
                    server.go_on()
            wait_for(put, "server that takes an object")
            assert probe("get", 9000, "there") == "ok whole(4000000)"

    def half_an_object(self):
        """A put that ends anywhere leaves nothing; a get that ends anywhere gives nothing wrong."""
        server = self.server()
        with Proxy(server.port) as proxy, self.probe(proxy.url()) as probe:
            assert probe("put", 9000, "there", SIZE, "-", 3) == "ok stored"
            for fault in ("cut", "reset", "stall"):
                for count in [0, 1, 2, 8, 9, 10, 60, 1000, SIZE // 2, SIZE + 9, SIZE + 10, SIZE + 100]:
                    proxy.direction = "down"
                    proxy.set(**{fault: count})
                    answer = probe("get", 400, "there", "none")
                    first = answer.split()[1]
                    assert first == OBJECT or first.startswith("failed("), (fault, count, answer)
                    assert "damaged" not in answer
                    proxy.direction = "up"
                    proxy.set(**{fault: count})
                    answer = probe("put", 400, f"new:{fault}:{count}", SIZE, "-", 3)
                    if answer not in ("ok stored", "ok existed"):
                        assert "timedOut" in answer or "unreachable" in answer, (fault, count, answer)
            proxy.set()
            self._recovers(probe, "get", 9000, "there", answer=f"ok {OBJECT}")
            for key in server.do("KEYS", "new:*"):
                assert server.do("STRLEN", key) == SIZE, key

    def flipped(self):
        """Each byte of an answer's head is changed, and some of its body: a wrong length is never believed, and every call ends."""
        server = self.server()
        with Proxy(server.port) as proxy, self.probe(proxy.url()) as probe:
            assert probe("put", 9000, "there", SIZE, "-", 3) == "ok stored"
            outcomes = {}
            head = f"${SIZE}\r\n"
            places = list(range(len(head))) + [SIZE + len(head), SIZE + len(head) + 1]
            places += [len(head) + self.random.randrange(SIZE) for _ in range(5)]
            for place in places * (1 if not self.long else 8):
                proxy.set(flip=place)
                answer = probe("get", 400, "there", "none").split()
                kind = answer[1].split("(")[0]
                outcomes[kind] = outcomes.get(kind, 0) + 1
                # A changed body is the chunk's checksum's to find. A wrong length is found here.
                assert kind in ("whole", "failed", "absent") or answer[1] == f"damaged({SIZE})", (place, answer)
            assert outcomes.get("failed", 0) >= 3 and outcomes.get("damaged", 0) >= 3, outcomes
            for place in range(5):
                proxy.set(flip=place)
                probe("exist", 400, "there", "none")
                proxy.set(flip=place)
                probe("information", 400)
            proxy.set()
            self._recovers(probe, "get", 9000, "there", answer=f"ok {OBJECT}")

    def slow(self):
        """A server behind a slow line: all questions of a look-up in one round trip, and no call beyond its deadline."""
        server = self.server()
        with Proxy(server.port, delay=0.05) as proxy, self.probe(proxy.url(), connect=9000) as probe:
            assert probe("many", 9000, 512, "x:") == "ok 0"
            answer = probe("many", 30, 512, "x:")
            assert "timedOut" in answer, answer
            proxy.set(silent=True)
            assert "timedOut" in probe("exist", 100, "a")
            proxy.set()
            self._recovers(probe, "exist", 9000, "a", answer="ok 0")

    def full(self):
        """Full with noeviction: told as full, and what is there can be read. Full with an LRU policy: the oldest leave."""
        server = self.server("--maxmemory", "30mb", "--maxmemory-policy", "noeviction")
        with self.probe(server.url()) as probe:
            answers = [probe("put", 9000, f"a:{number}", 1_000_000, 600_000, 1) for number in range(40)]
            assert "error full" in answers and answers[0] == "ok stored", answers
            assert probe("get", 9000, "a:0") == "ok whole(1000000)"
            assert f"max={30 << 20} policy=noeviction" in probe("information", 9000)
            assert probe("remove", 9000, *[f"a:{number}" for number in range(40)]).startswith("ok ")
            assert probe("put", 9000, "a:0", 1_000_000, 600_000, 1) == "ok stored"
        server = self.server("--maxmemory", "30mb", "--maxmemory-policy", "allkeys-lru")
        with self.probe(server.url()) as probe:
            for number in range(60):
                assert probe("put", 9000, f"a:{number}", 1_000_000, 600_000, 1) == "ok stored"
            there = probe("exist", 9000, *[f"a:{number}" for number in range(60)])
            assert 5 < there.count("1") < 40, there
            assert probe("put", 9000, "huge", 50_000_000, "-", 1) in ("error full", "ok stored")

    def users(self):
        """Passwords, users with few rights, and rights that are taken away while connections are open."""
        server = self.server("--requirepass", "master-secret", password="master-secret")
        folder = self.servers.folder

        def credentials(name, text):
            path = folder / name
            path.write_text(text)
            path.chmod(0o600)
            return path

        # The rights that the page says are enough.
        page = (ROOT / "docs/commands/remote.md").read_text()
        rights = re.search(r"ACL SETUSER kvstore on >SECRET ([^`]*)```", page).group(1).split()
        server.do("ACL", "SETUSER", "kv", "on", ">secret", *rights)
        good = credentials("good", "user=kv\npassword=secret\n")
        with self.probe(server.url()) as probe:
            assert probe("exist", 9000, "kv1:a") == "error unauthorized"
        with self.probe(server.url(), credentials=credentials("bad", "user=kv\npassword=wrong\n")) as probe:
            assert probe("exist", 9000, "kv1:a") == "error unauthorized"
        with self.probe(server.url(), credentials=credentials("one", "password=master-secret\n")) as probe:
            assert probe("exist", 9000, "kv1:a") == "ok 0"
        with self.probe(server.url() + "/3", credentials=good) as probe:
            assert probe("put", 9000, "kv1:a", SIZE, 60000, 1) == "ok stored"
            assert probe("get", 9000, "kv1:a") == f"ok {OBJECT}"
            assert probe("list", 9000, "kv1:").startswith("ok 1 ")
            assert probe("exist", 9000, "kv1:a") == "ok 1"
            assert probe("extend", 9000, 90000, "kv1:a") == "ok "
            assert "role=master" in probe("information", 9000)
            assert probe("remove", 9000, "kv1:b") == "ok 0"
            assert probe("put", 9000, "other", SIZE, 60000, 1) == "error unauthorized"
            server.do("ACL", "SETUSER", "kv", "-get")
            assert "unauthorized" in probe("get", 9000, "kv1:a")
            server.do("ACL", "SETUSER", "kv", "+get")
            assert probe("get", 9000, "kv1:a") == f"ok {OBJECT}"
            # Revoked: the server also ends what is connected.
            server.do("ACL", "SETUSER", "kv", "off")
            server.do("CLIENT", "KILL", "USER", "kv")
            wait_for(lambda: probe("exist", 9000, "kv1:a") == "error unauthorized", "refusal")
        keys = server.do("DBSIZE")
        assert keys == 0, "an object went into another database than the URL's"
        credentials("loose", "password=secret\n").chmod(0o644)
        with self.probe(server.url(), credentials=folder / "loose") as probe:
            line = probe.process.stdout.readline()
            assert "looseMode" in line and "secret" not in line, line

    def tls(self):
        """Encrypted: the server's certificate has to be right in every respect."""
        if self.server_program != remote_servers.redis_program():
            return
        certificates = self.servers.certificates()
        server = self.server("--tls-auth-clients", "no", tls=certificates)
        authority = certificates.authority
        with self.probe(server.url(), ca=authority, connect=9000) as probe:
            assert probe("put", 9000, "a", 5_000_000, 60000, 7) == "ok stored"
            assert probe("get", 9000, "a", "b", "a") == "ok whole(5000000) absent whole(5000000)"
            assert probe("many", 9000, 20000, "x:") == "ok 0"
            assert "role=master" in probe("information", 9000)
            server.kill()
            assert "unreachable" in probe("get", 300, "a")
            server.start()
            self._recovers(probe, "get", 9000, "a", answer="ok absent")
            server.stop()
            assert "timedOut" in probe("exist", 300, "a")
            server.go_on()
        with self.probe(server.url().replace("127.0.0.1", "localhost"), ca=authority, connect=9000) as probe:
            assert probe("exist", 9000, "a") == "ok 0"
        with self.probe(server.url(), connect=9000) as probe:
            assert "insecure" in probe("exist", 9000, "a")
        with self.probe(server.url(), verify="no", connect=9000) as probe:
            assert probe("exist", 9000, "a") == "ok 0"
        # A plain client at a TLS port, and the other way round.
        with self.probe(server.url("redis"), connect=9000) as probe:
            assert probe("exist", 2000, "a").startswith("error ")
        with self.probe(f"rediss://127.0.0.1:{server.plain_port}", ca=authority, connect=9000) as probe:
            assert probe("exist", 2000, "a").startswith("error ")
        with Proxy(server.port) as proxy, self.probe(proxy.url("rediss"), ca=authority, connect=9000) as probe:
            assert probe("put", 9000, "b", SIZE, 60000, 7) == "ok stored"
            for fault in ("flip", "reset", "cut", "stall"):
                for count in [0, 5, 200, 1500, 3000, 100_000]:
                    proxy.set(**{fault: count})
                    answer = probe("get", 500, "b")
                    assert OBJECT in answer or "failed(" in answer, (fault, count, answer)
            proxy.set()
            self._recovers(probe, "get", 9000, "b", answer=f"ok {OBJECT}")
        server.kill()
        other = remote_servers.Certificates.__new__(remote_servers.Certificates)
        other.__dict__.update(certificates.__dict__, certificate=certificates.other_certificate, key=certificates.other_key)
        server = self.server("--tls-auth-clients", "no", tls=other)
        with self.probe(server.url(), ca=authority, connect=9000) as probe:
            answer = probe("exist", 9000, "a")
            assert "insecure" in answer and "another address" in answer, answer
        server = self.server("--tls-auth-clients", "yes", tls=certificates)
        with self.probe(server.url(), ca=authority, connect=9000) as probe:
            assert probe("exist", 2000, "a").startswith("error ")
        with self.probe(server.url(), ca=authority, certificate=certificates.certificate, key=certificates.key, connect=9000) as probe:
            assert probe("exist", 9000, "a") == "ok 0"

    def names(self):
        """A host that is no address, and one that does not exist: no call waits for a name server beyond its deadline."""
        server = self.server()
        with self.probe(f"redis://localhost:{server.port}") as probe:
            assert probe("exist", 9000, "a") == "ok 0"
        with self.probe("redis://no-such-host.invalid:6379") as probe:
            answer = probe("exist", 500, "a")
            assert "unreachable" in answer or "timedOut" in answer, answer
        # A name server that does not answer.
        shim = self.servers.folder / "slow_names.so"
        source = Path(__file__).with_name("slow_names.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(shim)}
        with Probe(self.program, f"redis://localhost:{server.port}", environment) as probe:
            for _ in range(3):
                answer = probe("exist", 200, "a")
                assert "unreachable" in answer or "timedOut" in answer, answer
        with Probe(self.program, server.url(), environment) as probe:
            assert probe("exist", 9000, "a") == "ok 0"

    def command(self):
        """`kvstore remote`: what it says, and that no secret is in it."""
        kvstore = Path(os.environ.get("KVSTORE_PREFIX", ROOT / ".build-install")) / "bin/kvstore"
        if not kvstore.exists():
            return
        server = self.server("--requirepass", "secret-word", password="secret-word")
        path = self.servers.folder / "credentials"
        path.write_text("password=secret-word\n")
        path.chmod(0o600)

        def run(status, pattern, *arguments):
            result = subprocess.run(
                [kvstore, "remote", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
            )
            text = result.stdout + result.stderr
            assert result.returncode == status and re.search(pattern, text), (arguments, result.returncode, text)
            assert "secret-word" not in text
            assert all(len(line) <= 100 for line in result.stdout.splitlines()), text
            return text

        one, two = "a1" * 16, "b2" * 16
        for index in range(2500):
            server.do("SET", f"kv1:{one}:{index:032x}", "hello", "PX", 600_000)
        server.do("SET", f"kv1:{two}:{1:032x}", "x" * 2048)
        server.do("RPUSH", f"kv1:{two}:{2:032x}", "no string")
        server.do("MSET", "kv1:of somebody", "x", "kv10", "x", "other", "x")
        known = ["--credentials", str(path), "--timeout", "60s"]
        run(0, r"5 round trips +median .* worst ", "ping", server.url(), *known, "--count", "5")
        run(1, "refuses these credentials", "ping", server.url())
        run(64, "belongs in a credentials file", "ping", "redis://u:secret-word@127.0.0.1".replace("secret-word", "other"))
        run(1, "cannot be reached", "ping", "redis://127.0.0.1:1")
        run(1, "others may read it", "ping", server.url(), "--credentials", "/etc/passwd")
        run(64, 'Did you mean "kvstore remote ping"', "pign", server.url())
        text = run(0, rf"{one} .* 2500 ", "stat", server.url(), *known)
        assert re.search(rf"{two} .* 1 +2 KiB", text) and "noeviction" in text and "1 object without an end" in text, text
        run(64, "give --yes", "purge", server.url(), *known, "--all")
        run(1, "no identity begins with", "purge", server.url(), *known, "--identity", "ffff", "--yes")
        run(0, "would remove 2500 objects", "purge", server.url(), *known, "--identity", "a1a1", "--dry-run")
        run(0, "2500 objects removed", "purge", server.url(), *known, "--identity", "a1a1", "--yes")
        run(0, "2 objects removed", "purge", server.url(), *known, "--all", "--yes")
        assert sorted(server.do("KEYS", "*")) == [b"kv10", b"kv1:of somebody", b"other"]

    def verify(self):
        """`kvstore remote verify`: sound chunks, and every kind of damage."""
        kvstore = Path(os.environ.get("KVSTORE_PREFIX", ROOT / ".build-install")) / "bin/kvstore"
        if not kvstore.exists():
            return
        server = self.server()
        key = self.servers.folder / "key"
        key.write_text("k" * 40)
        key.chmod(0o600)
        with self.probe(server.url()) as probe:
            record, *chunks = probe("chunks", 60000, 6, "model-one").split()[1:]
            _, *keyed = probe("chunks", 60000, 3, "model-two", "k" * 40).split()[1:]

        def run(status, *arguments):
            result = subprocess.run(
                [kvstore, "remote", "verify", server.url(), "--json", "--timeout", "60s", *arguments],
                capture_output=True, text=True, timeout=300,
            )
            assert result.returncode == status, (arguments, result)
            return json.loads(result.stdout)

        found = run(0)
        assert (found["object_count"], found["chunk_count"], found["record_count"]) == (11, 9, 2), found
        assert found["unproven_count"] == 4, found
        found = run(0, "--key-file", key)
        assert found["unproven_count"] == 0, found
        client = server.client()

        def damaged(name, change, kind, *arguments):
            before = client("GET", name)
            client("SET", name, change(before))
            found = run(2, *arguments)
            assert [finding["name"] for finding in found["findings"]] == [name], (kind, found)
            assert kind in (None, found["findings"][0]["kind"]), (kind, found)
            client("SET", name, before)

        whole = client("GET", chunks[0])
        places = [0, 8, 30, 100, 159] + [self.random.randrange(len(whole)) for _ in range(15 if not self.long else 300)]
        for place in places:
            flip = bytes([1 << self.random.randrange(8)])
            damaged(chunks[0], lambda b: b[:place] + bytes([b[place] ^ flip[0]]) + b[place + 1:], None)
        damaged(chunks[0], lambda b: b[:-1], "length")
        damaged(chunks[0], lambda b: b + b"x", "length")
        damaged(chunks[0], lambda b: b"", "format")
        damaged(chunks[0], lambda b: b"something else", "format")
        damaged(chunks[0], lambda b: client("GET", chunks[1]), "name")
        damaged(chunks[0], lambda b: client("GET", keyed[0]), "identity")
        damaged(keyed[0], lambda b: b[:-1] + bytes([b[-1] ^ 1]), "code", "--key-file", key)
        damaged(record, lambda b: b"no record", "record")
        client("SET", chunks[2], "x" * 1000)
        client("DEL", chunks[3])
        client("RPUSH", chunks[3], "x")
        found = run(2, "--remove")
        assert (found["finding_count"], found["removed_count"]) == (2, 2), found
        assert run(0)["object_count"] == 9
        assert client("EXISTS", *chunks) == 4
        client.close()

    # ------------------------------------------------------------ a cluster

    def cluster(self):
        """Slots, redirections, a node that hangs, failovers by both ways, under load."""
        cluster = self.servers.cluster(self.server_program)
        one = cluster.masters[0]
        names = [f"kv1:{number}" for number in range(60)]
        with self.probe(one.url()) as probe:
            for name in names:
                assert probe("put", 9000, name, 20_000, "-", 2) == "ok stored"
            assert probe("exist", 9000, *names, "none") == "ok " + "1" * 60 + "0"
            assert probe("get", 9000, *names) == "ok " + " ".join(["whole(20000)"] * 60)
            assert probe("list", 9000, "kv1:").startswith("ok 60 ")
            assert probe("extend", 9000, 600_000, *names) == "ok "
            assert probe("information", 9000).count("127.0.0.1:") == 3
            self._moved_slots(cluster, probe, names)
            self._hanging_node(cluster, probe, names)
        for how in ("stop", "kill"):
            self._failover(cluster, how)
        # A client that knows only nodes that are gone or are replicas by now.
        with self.probe(cluster.url()) as probe:
            self._recovers(probe, "exist", 2000, "none", answer="ok 0")

    def _slot(self, node, name):
        return node.do("CLUSTER", "KEYSLOT", name)

    def _owner(self, cluster, slot):
        for first, last, master, *_ in cluster.masters[0].do("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in cluster.nodes if node.port == master[1])
        raise AssertionError(slot)

    def _moved_slots(self, cluster, probe, names):
        """A slot on its way to another node (ASK), and there (MOVED), while the client's map says otherwise."""
        name = names[7]
        slot = self._slot(cluster.masters[0], name)
        source = self._owner(cluster, slot)
        target = next(node for node in cluster.masters if node is not source)
        ids = {node: node.do("CLUSTER", "MYID").decode() for node in (source, target)}
        target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        assert probe("get", 9000, name) == "ok whole(20000)"
        source.do("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        # Asked for once, at the other node.
        assert probe("get", 9000, name, names[8]) == "ok whole(20000) whole(20000)"
        assert probe("exist", 9000, *names) == "ok " + "1" * 60
        for node in (target, source, *(n for n in cluster.masters if n not in (target, source))):
            node.do("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert probe("get", 9000, *names) == "ok " + " ".join(["whole(20000)"] * 60)
        assert probe("list", 9000, "kv1:").startswith("ok 60 ")

    def _hanging_node(self, cluster, probe, names):
        """Only its own slots fail, and only until the deadline."""
        hanging = cluster.masters[1]
        own = [name for name in names if self._owner(cluster, self._slot(cluster.masters[0], name)) is hanging]
        hanging.stop()
        try:
            answer = probe("get", 400, *names).split()[1:61]
            for name, outcome in zip(names, answer):
                if name in own:
                    assert outcome.startswith("failed("), (name, outcome)
                else:
                    assert outcome == "whole(20000)", (name, outcome)
            found = probe("exist", 400, *names)
            assert found == "ok " + "".join("0" if name in own else "1" for name in names), found
        finally:
            hanging.go_on()
        self._recovers(probe, "exist", 2000, *names, answer="ok " + "1" * len(names))

    def _failover(self, cluster, how):
        """A master goes while four threads write, look up and read: no wrong byte, no call without an end, and it goes on with the replica."""
        master = next(node for node in cluster.nodes if node.process.poll() is None
                      and "role:master" in node.do("INFO", "replication").decode()
                      and "slave" in str(node.do("ROLE")) + node.do("CLUSTER", "NODES").decode())
        seconds = 15 if not self.long else 40
        with self.probe(",".join([cluster.url()] + [f"127.0.0.1:{n.port}" for n in cluster.replicas])) as probe:
            probe.begin("load", 30000, f"load:{how}", seconds)
            time.sleep(2)
            getattr(master, how)()
            time.sleep(seconds / 2)
            if how == "stop":
                master.go_on()
            counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", probe.end())}
            assert counts["damaged"] == 0, counts
            assert counts["sound"] > 0 and counts["longest"] <= LATE * 500, counts
            print(f"    failover by {how}: {counts}")
            # All slots are served again.
            names = [f"after:{how}:{number}" for number in range(50)]
            for name in names:
                self._recovers(probe, "put", 2000, name, 1000, "-", 1, answer="ok stored")
            assert probe("exist", 9000, *names) == "ok " + "1" * 50
        if how == "kill":
            master.start()
        wait_for(lambda: all(cluster.is_up(node) for node in cluster.nodes), "cluster that is whole again")

    def cluster_down(self):
        """A cluster that wants all slots and lacks some: told as unavailable."""
        cluster = self.servers.cluster(self.server_program, needs_all=True)
        with self.probe(cluster.url()) as probe:
            assert probe("put", 9000, "a", SIZE, "-", 1) == "ok stored"
            for node in (cluster.masters[1], cluster.replicas[1]):
                node.kill()
            wait_for(lambda: not cluster.is_up(cluster.masters[0]), "cluster that is down")
            answers = {probe("exist", 500, f"x:{number}") for number in range(30)}
            assert answers & {"error unavailable"}, answers
            assert all(answer.startswith("error ") for answer in answers), answers

    def cluster_with_tls(self):
        """TLS and a password for every node."""
        if self.server_program != remote_servers.redis_program():
            return
        certificates = self.servers.certificates()
        cluster = self.servers.cluster(
            self.server_program, "--tls-auth-clients", "no", tls=certificates, password="secret"
        )
        path = self.servers.folder / "cluster-credentials"
        path.write_text("password=secret\n")
        path.chmod(0o600)
        names = [f"kv1:{number}" for number in range(30)]
        options = {"ca": certificates.authority, "credentials": path, "connect": 9000}
        with self.probe(cluster.masters[0].url(), **options) as probe:
            for name in names:
                assert probe("put", 9000, name, 20_000, "-", 2) == "ok stored"
            assert probe("get", 9000, *names) == "ok " + " ".join(["whole(20000)"] * 30)


def nothing_linked(program):
    """The client links no TLS library; it is opened for rediss:// only."""
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert "ssl" not in linked and "crypto" not in linked, linked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    # A test that hangs is a failed one.
    signal.alarm(900 if not arguments.long else 3600)
    nothing_linked(arguments.program)
    cases = ["calls", "killed_and_stopped", "half_an_object", "flipped", "slow", "full", "users", "tls", "names", "command", "verify",
             "cluster", "cluster_down", "cluster_with_tls"]
    programs = remote_servers.programs()
    if not programs:
        print("remote: skipped: neither redis-server nor valkey-server can be had here")
        return 0
    failed = 0
    for server_name, server_program in programs.items():
        # In the short form the second server only has to show where it differs.
        is_first = server_name == next(iter(programs))
        for name in cases if is_first or arguments.long else SECOND:
            if arguments.only and name not in arguments.only.split(","):
                continue
            start = time.monotonic()
            try:
                with Servers() as servers:
                    getattr(Cases(arguments.program, server_program, servers, arguments.long), name)()
                print(f"ok    {server_name} {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except Exception as error:  # noqa: BLE001: the next case tells something too
                failed += 1
                lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)]
                print(f"FAIL  {server_name} {name}: {type(error).__name__}: {error} (lines {lines})", flush=True)
    print(f"remote: {'FAILED ' + str(failed) if failed else 'passed'}, with {', '.join(programs)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
