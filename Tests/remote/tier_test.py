"""Two stores and one real server: what one machine stored, the other restores, and what the server does to it meanwhile.

usage: tier_test.py        (the Python package and the library must be found: KVSTORE_LIBRARY, PYTHONPATH)
"""
import os
import sys
import tempfile
import time
from pathlib import Path

import kvstore

sys.path.insert(0, str(Path(__file__).resolve().parent))
import servers  # noqa: E402

TOKENS_PER_BLOCK = 16
# A chunk has two blocks.
REGION_BYTES = (1 << 20, 1 << 20)
BLOCKS = 8


def identity(**fields):
    return kvstore.Identity(
        **{"model_name": "test", "tokens_per_block": TOKENS_PER_BLOCK, "region_bytes": REGION_BYTES, **fields}
    )


def payload(block, region):
    seed = f"block {block} region {region} ".encode()
    return (seed * (REGION_BYTES[region] // len(seed) + 1))[: REGION_BYTES[region]]


def prompt(first=0):
    return kvstore.Prompt(list(range(first, first + BLOCKS * TOKENS_PER_BLOCK)))


def offload(namespace, tokens):
    pieces = [payload(block, region) for block in range(BLOCKS) for region in (0, 1)]
    return namespace.offload(tokens, pieces)


def restored(namespace, tokens):
    """How many leading blocks come, each of them with the bytes that it must have."""
    count = BLOCKS
    buffers = [bytearray(REGION_BYTES[region]) for _ in range(count) for region in (0, 1)]
    done = namespace.restore(tokens, buffers).blocks_done
    for index in range(2 * done):
        assert buffers[index] == payload(index // 2, index % 2), f"wrong bytes in block {index // 2}"
    return done


def found(namespace, tokens, seconds=60):
    """The prefix once nothing of it is on its way."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with namespace.match(tokens, remote=True) as match:
            if not match.being_fetched:
                return match.blocks
        time.sleep(0.002)
    raise TimeoutError("a fetch did not end")


def wait_for_sent(store, count):
    servers.wait_for(lambda: store.stats()["remote_chunks_sent"] >= count, f"{count} chunks that were sent")


def machine(folder, name, url, look_up=30, **settings):
    """A store; a busy computer is no reason to fail."""
    return kvstore.Store(
        folder / name,
        capacity="512MiB",
        host="128MiB",
        remote=url,
        remote_writes="all",
        remote_look_up_timeout_seconds=look_up,
        remote_transfer_timeout_seconds=60,
        **settings,
    )


def shared(url, folder, **settings):
    """One stores, another restores; nothing crosses from one model to another."""
    with machine(folder, "a", url, **settings) as a, machine(folder, "b", url, **settings) as b:
        offload(a.namespace(identity()), prompt())
        a.flush()
        wait_for_sent(a, BLOCKS // 2)
        namespace = b.namespace(identity())
        assert found(namespace, prompt()) == BLOCKS
        assert restored(namespace, prompt()) == BLOCKS
        other = b.namespace(identity(weights_digest=b"another model's"))
        assert found(other, prompt()) == 0
        b.flush()
        return b.stats()


def with_states(url, folder, **settings):
    """State that stands behind a prefix, as recurrent layers have it: another machine finds the longest prefix that has one."""
    state_bytes = 300_000

    def open_both(store):
        namespace = store.namespace(identity())
        return namespace, namespace.section("recurrent", state_bytes)

    def digest(section, blocks):
        return kvstore.Prompt(digests=[section.section_digest(prompt(), blocks)])

    def state(blocks):
        return (b"state after %d blocks " % blocks) * 1000

    with machine(folder, "sa", url, **settings) as a, machine(folder, "sb", url, **settings) as b:
        namespace, section = open_both(a)
        offload(namespace, prompt())
        for blocks in (2, 7):
            section.offload(digest(section, blocks), [state(blocks)])
        a.flush()
        # Three whole chunks before the seventh block, half of one, and two states.
        wait_for_sent(a, BLOCKS // 2 + 1 + 2)
        namespace, section = open_both(b)
        found_blocks = None

        def is_found():
            nonlocal found_blocks
            matches = namespace.match_sections([section], prompt(), remote=True)
            found_blocks = matches[0].blocks
            for match in matches:
                if match.lease:
                    b.release(match.lease)
            return not matches[0].being_fetched

        servers.wait_for(is_found, "end of a fetch")
        assert found_blocks == 7, found_blocks
        buffers = [bytearray(REGION_BYTES[region]) for _ in range(7) for region in (0, 1)]
        assert namespace.restore(prompt(), buffers, block_count=7).blocks_done == 7
        assert all(buffers[i] == payload(i // 2, i % 2) for i in range(14))
        room = bytearray(state_bytes)
        assert section.restore(digest(section, 7), [room]).blocks_done == 1
        assert room.startswith(state(7))


def killed(program, servers_, folder):
    """The server dies under a fetch and comes back: misses, and what is local stays."""
    server = servers_.server(program)
    with machine(folder, "ka", server.url()) as a, machine(folder, "kb", server.url(), look_up=0.5) as b:
        offload(a.namespace(identity()), prompt())
        a.flush()
        wait_for_sent(a, BLOCKS // 2)
        namespace = b.namespace(identity())
        offload(namespace, prompt(10_000))
        server.stop()
        assert found(namespace, prompt(20_000)) == 0
        assert restored(namespace, prompt(10_000)) == BLOCKS
        server.go_on()
        server.kill()
        for first in range(30_000, 35_000, 1000):
            assert found(namespace, prompt(first)) == 0
        assert restored(namespace, prompt(10_000)) == BLOCKS
        stats = b.stats()
        # Failed writes open the circuit breaker as failed reads do.
        assert stats["remote_left_alone"] == 1 and stats["remote_misses"] >= 1, stats


def main():
    programs = servers.programs()
    if not programs:
        print("tier: no server can be had, nothing was tested")
        return
    with servers.Servers() as started, tempfile.TemporaryDirectory(prefix="kvstore-tier.") as root:
        for number, (name, program) in enumerate(programs.items()):
            folder = Path(root) / str(number)
            folder.mkdir()
            key = folder / "key"
            key.write_bytes(os.urandom(32))
            key.chmod(0o600)
            stats = shared(started.server(program).url(), folder)
            print(f"{name}: {stats['remote_chunks_fetched']} chunks, {stats['remote_look_up_rounds']} rounds of questions")
            keyed = folder / "keyed"
            keyed.mkdir()
            shared(started.server(program).url(), keyed, remote_key_file=key)
            states = folder / "states"
            states.mkdir()
            with_states(started.server(program).url(), states, remote_encoding="frames", remote_demotes=True)
            cluster = folder / "cluster"
            cluster.mkdir()
            shared(started.cluster(program).url(), cluster)
            killed(program, started, folder)
            print(f"{name}: with a key, with states, as a cluster, and stopped and killed under a fetch")


if __name__ == "__main__":
    main()
