"""Two stores, a real server, and between the second store and the server a proxy that flips, cuts, resets and stalls; and rights that are revoked.

usage: tier_faults_test.py [--long]        (environment as tier_test.py)

Whatever comes: never a wrong byte, a miss with its cause, the object removed if it may be, and calls that return while the other side hangs.
"""
import os
import re
import sys
import tempfile
from pathlib import Path

import kvstore
import servers
from proxy import Proxy
from tier_test import found, wait_for_sent

TOKENS_PER_BLOCK = 16
REGION_BYTES = (20_000, 10_000)
# A chunk has 64 of these blocks.
BLOCKS = 128
CHUNKS = 2


def identity(**fields):
    return kvstore.Identity(
        **{"model_name": "faults", "tokens_per_block": TOKENS_PER_BLOCK, "region_bytes": REGION_BYTES, **fields}
    )


def payload(block, region):
    seed = f"block {block} region {region} ".encode()
    return (seed * (REGION_BYTES[region] // len(seed) + 1))[: REGION_BYTES[region]]


def prompt(first=0, tail=None):
    """Another tail is another look-up, of the same chunks."""
    tokens = list(range(first, first + BLOCKS * TOKENS_PER_BLOCK))
    return kvstore.Prompt(tokens + ([] if tail is None else [1_000_000 + tail] * 64 * TOKENS_PER_BLOCK))


def offload(namespace, tokens):
    return namespace.offload(tokens, [payload(block, region) for block in range(BLOCKS) for region in (0, 1)])


def restored(namespace, tokens):
    buffers = [bytearray(REGION_BYTES[region]) for _ in range(BLOCKS) for region in (0, 1)]
    done = namespace.restore(tokens, buffers, block_count=BLOCKS).blocks_done
    for index in range(2 * done):
        assert buffers[index] == payload(index // 2, index % 2), f"wrong bytes in block {index // 2}"
    return done


def machine(folder, name, url, timeout=60, **settings):
    return kvstore.Store(
        folder / name, capacity="512MiB", host="128MiB", remote=url, remote_writes="all",
        remote_look_up_timeout_seconds=timeout, remote_transfer_timeout_seconds=timeout, **settings,
    )


def causes(store, kind="misses"):
    """Counts by cause, of misses or drops, of the causes that were."""
    found = re.findall(rf'kvstore_remote_{kind}_total{{cause="(\w+)"}} (\d+)', store.metrics_text())
    return {cause: int(count) for cause, count in found if count != "0"}


class Objects:
    """What one store sent, and how it is put back."""

    def __init__(self, server, folder, **settings):
        self.server = server
        with machine(folder, "writer", server.url(), **settings) as store:
            offload(store.namespace(identity()), prompt())
            store.flush()
            wait_for_sent(store, CHUNKS)
        self.objects = {name: server.do("GET", name) for name in self.names()}
        chunks = sorted((name for name in self.objects if not name.endswith(b":id")), key=self.place)
        self.first, self.second = chunks

    def place(self, name):
        return int.from_bytes(self.objects[name][28:32], "little")

    def names(self):
        return self.server.do("KEYS", "kv1:*")

    def reset(self):
        for name, content in self.objects.items():
            self.server.do("SET", name, content)


def empty(namespace, store, objects):
    """What a store has is not to be had from there again: it goes, and everything is there as it was."""
    namespace.purge()
    servers.wait_for(lambda: store.stats()["remote_purges_pending"] == 0, "purge")
    objects.reset()


def recover(namespace, store, first):
    """Until it is asked again: a sound answer closes the circuit breaker."""
    assert found(namespace, prompt(first)) == 0
    servers.wait_for(
        lambda: found(namespace, prompt(first)) == 0 and not store.stats()["remote_left_alone"], "closed circuit breaker"
    )


def flips(objects, server, folder, is_long):
    """Every byte that comes before the first chunk's payload, one bit of it changed on the way; then some of the payload."""
    header = int.from_bytes(objects.objects[objects.first][24:28], "little")
    fixed = 160 + 40 + 2 * 16
    # The answers before it: EXISTS of three chunks, and the length.
    before = 3 * 4 + len(f"${len(objects.objects[objects.first])}\r\n")
    numbers = list(range(before + fixed + 24))
    numbers += list(range(numbers[-1], before + header, 1 if is_long else 1301))
    numbers += [before + header - 8 + byte for byte in range(8)]
    step = 9973 if is_long else 199_933
    numbers += list(range(before + header, before + len(objects.objects[objects.first]) + 2, step))
    # A length that was changed keeps it waiting until the deadline.
    with Proxy(server.port) as proxy, machine(folder, "flips", proxy.url(), timeout=1) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt(50_000)) == 0
        removed = 0
        for tail, number in enumerate(numbers):
            before_misses = sum(causes(store).values())
            proxy.set(flip=number)
            count = found(namespace, prompt(tail=tail))
            done = restored(namespace, prompt(tail=tail))
            assert done == count, (number, done, count)
            if count < BLOCKS:
                assert sum(causes(store).values()) > before_misses, number
            if objects.first not in objects.names():
                removed += 1
            proxy.set()
            empty(namespace, store, objects)
            recover(namespace, store, 60_000 + tail * 7)
        by_cause = causes(store)
        assert removed > fixed / 2, removed
        assert {"format", "length", "damaged", "identity"} & set(by_cause), by_cause
        print(f"faults: {len(numbers)} flipped bytes: {by_cause}, {removed} objects removed", flush=True)


def written_over(objects, server, folder):
    """What somebody who may write there has put under our names."""
    content = objects.objects
    old = bytearray(content[objects.first])
    old[8] = 0
    cases = {
        "the second chunk": (objects.first, content[objects.second]),
        "a format of another version": (objects.first, bytes(old)),
        "half of it": (objects.first, content[objects.first][: len(content[objects.first]) // 2]),
        "more than all of it": (objects.first, content[objects.first] + b"\0" * 100),
        "a word": (objects.first, b"hello"),
        "nothing": (objects.first, b""),
    }
    for number, (what, (name, value)) in enumerate(cases.items()):
        server.do("SET", name, value)
        with machine(folder, f"over-{number}", server.url()) as store:
            namespace = store.namespace(identity())
            assert found(namespace, prompt()) == 0, what
            assert restored(namespace, prompt()) == 0
            assert sum(causes(store).values()) >= 1, what
            assert name not in objects.names(), what
        objects.reset()
    with machine(folder, "over-list", server.url()) as store:
        server.do("DEL", objects.first)
        server.do("RPUSH", objects.first, "a", "list")
        assert found(store.namespace(identity()), prompt()) == 0
        assert causes(store).get("refused") == 1, causes(store)
    server.do("DEL", objects.first)
    objects.reset()
    record = next(name for name in content if name.endswith(b":id"))
    server.do("SET", record, b"another identity")
    with machine(folder, "over-identity", server.url()) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt()) == 0
        assert causes(store) == {"identity": 1}, causes(store)
        offload(namespace, prompt(200_000))
        store.flush()
        assert restored(namespace, prompt(200_000)) == BLOCKS
        servers.wait_for(lambda: causes(store, "drops").get("identity", 0) >= 1, "dropped chunk")
    assert sorted(objects.names()) == sorted(content)
    objects.reset()
    print(f"faults: {len(cases) + 2} objects of somebody else's under our names", flush=True)


def cuts(objects, server, folder):
    """A connection that ends, is reset or says nothing more in the midst of an object; the store's own calls go on meanwhile."""
    with Proxy(server.port) as proxy, machine(folder, "cuts", proxy.url()) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt(50_000)) == 0
        size = len(objects.objects[objects.first])
        for fault in ("cut", "reset"):
            for number, place in enumerate((0, 3, 20, 1000, size // 2, size + 10)):
                proxy.set(**{fault: place})
                count = found(namespace, prompt(tail=number + (100 if fault == "cut" else 200)))
                assert restored(namespace, prompt(tail=0)) == count
                proxy.set()
                empty(namespace, store, objects)
                recover(namespace, store, 80_000 + number)
        assert causes(store).get("unreachable", 0) >= 6, causes(store)
        assert sorted(objects.names()) == sorted(objects.objects)
        # Nothing more comes: what is asked meanwhile is answered before the proxy lets go.
        for place in (0, 1000, size // 2):
            proxy.set(stall=place)
            tail = 300 + place
            with namespace.match(prompt(tail=tail), remote=True) as match:
                assert match.being_fetched and match.blocks == 0, (place, match)
            own = prompt(300_000 + place)
            offload(namespace, own)
            store.flush()
            assert restored(namespace, own) == BLOCKS
            with namespace.match(own, remote=True) as match:
                assert match.blocks == BLOCKS
            with namespace.match(prompt(tail=tail), remote=True) as match:
                assert match.being_fetched or store.stats()["remote_left_alone"], place
            proxy.set()
            # An idle connection that ends without a byte is replaced: then all of it comes.
            assert restored(namespace, prompt(tail=tail)) <= found(namespace, prompt(tail=tail))
            empty(namespace, store, objects)
            recover(namespace, store, 90_000 + place)
        print("faults: cut, reset and stalled connections", flush=True)


def delays(objects, server, folder):
    with Proxy(server.port, delay=0.02) as proxy, machine(folder, "delays", proxy.url()) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt()) == BLOCKS
        assert restored(namespace, prompt()) == BLOCKS
    # Later than the deadline.
    with Proxy(server.port, delay=0.5) as proxy, machine(folder, "late", proxy.url(), timeout=0.1) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt()) == 0
        assert causes(store).keys() <= {"timed_out", "unreachable"}, causes(store)
    print("faults: delays", flush=True)


def revoked(program, started, folder):
    """A user whose rights go in the midst: misses and drops, nothing else; and what may not be removed stays."""
    folder = folder / "rights"
    folder.mkdir()
    server = started.server(program)
    everything = ("on", ">secret", "~kv1:*", "+@all")
    server.do("ACL", "SETUSER", "kv", *everything)
    credentials = folder / "credentials"
    credentials.write_text("user=kv\npassword=secret\n")
    credentials.chmod(0o600)
    objects = Objects(server, folder, remote_credentials_file=credentials)
    with machine(folder, "revoked", server.url(), remote_credentials_file=credentials) as store:
        namespace = store.namespace(identity())
        assert found(namespace, prompt(50_000)) == 0
        for number, change in enumerate((("-@all",), ("resetkeys",), ("off", "DELETED"))):
            if change[-1] == "DELETED":
                server.do("ACL", "DELUSER", "kv")
            else:
                server.do("ACL", "SETUSER", "kv", *change)
            before = causes(store).get("unauthorized", 0)
            assert found(namespace, prompt(tail=number)) == 0
            assert causes(store).get("unauthorized", 0) > before, (change, causes(store))
            own = prompt(400_000 + number * 10_000)
            offload(namespace, own)
            store.flush()
            assert restored(namespace, own) == BLOCKS
            server.do("ACL", "SETUSER", "kv", *everything)
        servers.wait_for(lambda: causes(store, "drops").get("unauthorized", 0) >= 1, "chunk that was refused")
        # Objects that it may read and not remove.
        server.do("ACL", "SETUSER", "kv", "-unlink", "-del")
        server.do("SET", objects.first, b"x" * 300)
        assert found(namespace, prompt(tail=20)) == 0
        assert store.stats()["remote_objects_removed"] == 0 and objects.first in objects.names()
        server.do("ACL", "SETUSER", "kv", "+@all")
        objects.reset()
        assert found(namespace, prompt(tail=30)) == BLOCKS
        assert restored(namespace, prompt(tail=30)) == BLOCKS
        for text in (store.metrics_text(), repr(store.stats()), repr(store)):
            assert "secret" not in text
    print("faults: rights that were revoked in the midst", flush=True)


def moved_folder(server, folder):
    """Relative names of files count from where the store was opened; later only connections are new."""
    server.do("FLUSHALL")
    (folder / "key").write_bytes(os.urandom(32))
    (folder / "key").chmod(0o600)
    (folder / "credentials").write_text("password=x\n")
    (folder / "credentials").chmod(0o600)
    server.do("CONFIG", "SET", "requirepass", "x")
    server.password = "x"
    before = Path.cwd()
    os.chdir(folder)
    try:
        files = {"remote_key_file": "key", "remote_credentials_file": "credentials"}
        with machine(Path(), "moved-a", server.url(), **files) as a, machine(Path(), "moved-b", server.url(), **files) as b:
            os.chdir("/")
            for name in ("key", "credentials"):
                (folder / name).unlink()
            offload(a.namespace(identity(salt=b"tenant")), prompt())
            a.flush()
            wait_for_sent(a, CHUNKS)
            server.do("CLIENT", "KILL", "TYPE", "normal")
            namespace = b.namespace(identity(salt=b"tenant"))
            assert found(namespace, prompt()) == BLOCKS
            assert restored(namespace, prompt()) == BLOCKS
    finally:
        os.chdir(before)
    print("faults: a changed working directory", flush=True)


def tenants(server, folder, count):
    """Many tenants with a key that the machines share: each finds its own, and names and objects tell nothing."""
    server.do("FLUSHALL")
    key = folder / "tenants-key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    tokens = kvstore.Prompt(list(range(64 * TOKENS_PER_BLOCK)))

    def space(store, tenant):
        return store.namespace(identity(region_bytes=(100, 60), salt=b"secret of tenant %d" % tenant))

    def pieces(tenant):
        return [b"%08d" % tenant * (size // 8) + b"...."[: size % 8] for _ in range(64) for size in (100, 60)]

    with machine(folder, "tenants-a", server.url(), remote_key_file=key) as a:
        for tenant in range(count):
            with space(a, tenant) as namespace:
                namespace.offload(tokens, pieces(tenant))
            if tenant % 100 == 99 or tenant + 1 == count:
                a.flush()
                wait_for_sent(a, tenant + 1)
        assert a.stats()["remote_drops"] == 0, causes(a, "drops")
    names = server.do("KEYS", "*")
    assert len(names) == 2 * count and len({name.split(b":")[1] for name in names}) == count
    shape = re.compile(rb"kv1:[0-9a-f]{32}:([0-9a-f]{32}|id)")
    for name in names:
        assert shape.fullmatch(name), name
        assert b"secret" not in server.do("GET", name)
    with machine(folder, "tenants-b", server.url(), remote_key_file=key) as b:
        for tenant in range(0, count, 1 + count // 2000):
            with space(b, tenant) as namespace:
                assert found(namespace, tokens) == 64, tenant
                buffers = [bytearray(size) for _ in range(64) for size in (100, 60)]
                assert namespace.restore(tokens, buffers).blocks_done == 64
                assert buffers == pieces(tenant), tenant
    # Of another key, or of none.
    other = folder / "other-key"
    other.write_bytes(os.urandom(32))
    other.chmod(0o600)
    for files in ({}, {"remote_key_file": other}):
        with machine(folder, f"tenants-{len(files)}", server.url(), **files) as stranger, space(stranger, 0) as namespace:
            assert found(namespace, tokens) == 0
    print(f"faults: {count} tenants", flush=True)


def main():
    is_long = "--long" in sys.argv
    programs = servers.programs()
    if not programs:
        print("faults: no server can be had, nothing was tested")
        return
    with servers.Servers() as started, tempfile.TemporaryDirectory(prefix="kvstore-faults.") as root:
        for number, (name, program) in enumerate(programs.items() if is_long else list(programs.items())[:1]):
            folder = Path(root) / str(number)
            folder.mkdir()
            server = started.server(program)
            objects = Objects(server, folder)
            flips(objects, server, folder, is_long)
            written_over(objects, server, folder)
            cuts(objects, server, folder)
            delays(objects, server, folder)
            revoked(program, started, folder)
            moved_folder(started.server(program), folder)
            tenants(server, folder, 10_000 if is_long else 300)


if __name__ == "__main__":
    main()
