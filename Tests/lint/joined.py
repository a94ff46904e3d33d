"""What a real store says of a prompt whose prefix a later request lost: one store for each thing that can have become of it."""

import os
import shutil
import sys
import time
import zlib
from pathlib import Path

TOKENS_PER_BLOCK = 16


def token(word):
    return zlib.crc32(word.encode()) & 0xFFFFFF


def words(request):
    """The server's tokens: a template and a tokenizer that anybody can check by hand."""
    return "\n".join(f"<{m['role']}> {m['content']}" for m in request["messages"]).split()


class Joined:
    def __init__(self, command, folder, request, lint, check):
        """`lint`: runs the command on the log with these options; `request`: the earlier one, which a store may have."""
        library = Path(command).parent.parent / "lib/libkvstore.so.0"
        self.found = library.exists()
        if not self.found:
            print("a store beside it: skipped, there is no library beside the command")
            return
        os.environ["KVSTORE_LIBRARY"] = str(library)
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "Integrations/python/src"))
        import kvstore

        self.kvstore, self.lint, self.check, self.folder = kvstore, lint, check, folder
        self.tokens = [token(word) for word in words(request)]
        self.count, self.blocks = len(self.tokens), len(self.tokens) // TOKENS_PER_BLOCK
        assert self.blocks >= 3
        self.prompt = self.front(self.blocks)

    def front(self, blocks):
        return self.kvstore.Prompt(self.tokens[: blocks * TOKENS_PER_BLOCK])

    def identity(self, name="m", size=4096):
        return self.kvstore.Identity(model_name=name, tokens_per_block=TOKENS_PER_BLOCK, region_bytes=(size,))

    def other(self, number, blocks=1):
        return self.kvstore.Prompt([number * 1000 + 1 + n for n in range(TOKENS_PER_BLOCK * blocks)])

    def said(self, path, *options):
        findings = self.lint("--store", path, *options)["findings"]
        self.check(len(findings) == 1 and not findings[0]["tokens_estimated"], f"{path.name}: {findings}")
        return findings[0]["store"]

    def store(self, name, **options):
        return self.kvstore.Store(self.folder / name, **{"capacity": "128MiB", "host": "16MiB", **options})

    def keep(self, namespace, prompt, blocks, size=4096, **options):
        namespace.offload(prompt, [bytes([7]) * size] * blocks, **options)

    def run(self):
        if not self.found:
            return
        for name in ("stored", "stored_in_part", "never_stored", "forgotten", "expired", "evicted", "over_quota", "other_identity", "in_use", "damaged"):
            path = self.folder / name
            getattr(self, name)(path)
            shutil.rmtree(path, ignore_errors=True)

    def kept(self, path, *more, size=4096, blocks=None, **options):
        """A store with the front of the prompt, after what `more(store, namespace)` does."""
        blocks = self.blocks if blocks is None else blocks
        with self.store(path.name) as store, store.namespace(self.identity(size=size), **options) as namespace:
            self.keep(namespace, self.other(1), 1, size)
            if blocks:
                self.keep(namespace, self.front(blocks), blocks, size)
            store.flush()
            for act in more:
                act(store, namespace)
            store.flush()

    def equal(self, path, wanted, *options):
        found = self.said(path, *options)
        self.check(found == wanted, f"{path.name}: {found!r} is not {wanted!r}")

    # ------------------------------------------------------------ what became of it

    def stored(self, path):
        self.kept(path)
        self.equal(path, "stored")

    def stored_in_part(self, path):
        self.kept(path, blocks=self.blocks - 1)
        self.equal(path, f"stored for {(self.blocks - 1) * TOKENS_PER_BLOCK} of {self.count} tokens")

    def never_stored(self, path):
        self.kept(path, blocks=0)
        self.equal(path, "never stored")

    def forgotten(self, path):
        self.kept(path, lambda store, namespace: namespace.forget(self.front(1)))
        self.equal(path, f"forgotten (0 of {self.count} tokens are left)")

    def expired(self, path):
        self.kept(path, ttl_seconds=0.2)
        time.sleep(0.5)
        self.equal(path, f"expired (0 of {self.count} tokens are left)")

    def evicted(self, path):
        """Others needed the room."""
        size = 1 << 20
        with self.store(path.name, capacity="72MiB", catalog="32MiB") as store, store.namespace(self.identity(size=size)) as namespace:
            self.keep(namespace, self.prompt, self.blocks, size)
            store.flush()
            self.push_out(store, namespace, size)
        self.equal(path, f"evicted (0 of {self.count} tokens are left)")

    def push_out(self, store, namespace, size=4096):
        """Others, until nothing of the prompt is left."""
        for number in range(2, 300):
            self.keep(namespace, self.other(number), 1, size)
            store.flush()
            if namespace.match(self.prompt, peek=True).blocks == 0:
                return
        self.check(False, "nothing left")

    def over_quota(self, path):
        self.kept(path, self.push_out, quota="256KiB")
        self.equal(path, f"evicted by its quota (0 of {self.count} tokens are left)")

    def other_identity(self, path):
        """Another model has it; the namespace that is asked has something else."""
        with self.store(path.name) as store:
            with store.namespace(self.identity("n")) as namespace:
                self.keep(namespace, self.prompt, self.blocks)
            with store.namespace(self.identity("m")) as namespace:
                self.keep(namespace, self.other(1), 1)
                store.flush()
                number = namespace.id
        self.equal(path, "stored under another identity", "--namespace", number)

    def in_use(self, path):
        """A server has it open."""
        with self.store(path.name) as store, store.namespace(self.identity()) as namespace:
            self.keep(namespace, self.prompt, self.blocks)
            store.flush()
            self.equal(path, "stored")

    def damaged(self, path):
        """A block fails its check when it is read, and is set aside."""
        size = 1 << 20
        self.kept(path, size=size)
        for file in path.rglob("*"):
            if file.is_file() and "mdb" not in file.name:
                data = file.read_bytes()
                with file.open("r+b") as target:
                    for place in range(0, len(data), size // 2):
                        if data[place : place + 16] == bytes([7]) * 16:
                            target.seek(place)
                            target.write(bytes([8]) * 16)
        with self.store(path.name) as store, store.namespace(self.identity(size=size)) as namespace:
            namespace.restore(self.prompt, [bytearray(size) for _ in range(self.blocks)])
            store.flush()
        self.equal(path, f"damaged (0 of {self.count} tokens are left)")
