"""Mixed load for a while: memory, descriptors and tmpfs stay within bounds."""
import os
import pathlib
import random
import threading
import time

from harness import check, equal, random_tokens
from support import pair
from surface import LONG, Requests

SECONDS = float(os.environ.get("KVSTORE_LLAMA_LOAD_SECONDS", "3600" if LONG else "12"))


def figures(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    anonymous = int(fields["RssAnon"].split()[0]) / 1024
    return anonymous, len(os.listdir(f"/proc/{process.pid}/fd")), int(fields["Threads"])


class Table:
    """A row every twentieth of the time, where it is long."""

    def __init__(self, seconds):
        self.every, self.next = seconds / 20, 0
        self.is_shown = seconds >= 60
        if self.is_shown:
            print("      seconds  requests  kills  MiB  descriptors  threads  tmpfs MiB  store MiB  evicted", flush=True)

    def row(self, now, requests, kills, process, tmpfs, store):
        if not self.is_shown or now < self.next:
            return
        self.next += self.every
        memory, descriptors, threads = figures(process)
        print(f"      {now:7.0f} {requests:9} {kills:6} {memory:4.0f} {descriptors:12} {threads:8} {tmpfs / 2**20:10.1f} "
              f"{store['bytes_used'] / 2**20:10.1f} {store['evicted']:8}", flush=True)


def test_mixed_load(place, processes):
    """Six clients, all interfaces, some that leave, the server killed now and then. Memory is measured once warm and at the
    end: with a store that is full by then, what is left may not grow."""
    server, beside = pair(
        place, processes, "attention", "-np", "3", "--cache-ram", "0", companion=("--capacity", "64MiB", "--host", "16MiB")
    )
    stop, counts, lock = threading.Event(), {}, threading.Lock()

    def work(seed):
        requests, source = Requests(seed), random.Random(seed)
        while not stop.is_set():
            path, body = requests.next()
            if source.random() < 0.3:
                # Another conversation each time: stored, and evicted later.
                path, body = "/completion", {"prompt": random_tokens(source.randrange(200, 3000), source.random()), "n_predict": 4}
            try:
                timeout = 0.02 if source.random() < 0.1 else 60
                answer = beside.client.post(path, body, timeout=timeout)
                status = answer.status
                if status == 500:
                    status = f"500 {path} {answer.headers.get('x-kvstore-prefix')} {answer.body[:200]}"
            except TimeoutError:
                # One that meant to wait for its answer, or one that did not.
                status = "left" if timeout < 1 else "no answer in a minute"
            except OSError:
                status = "broken"
            except Exception:  # noqa: BLE001 - a half answer of a killed server
                status = "half"
            with lock:
                counts[status] = counts.get(status, 0) + 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    early, tmpfs, killed, kills = None, 0, begin, 0
    slots = os.path.realpath(server.slots_folder)
    table = Table(SECONDS)
    while (now := time.monotonic() - begin) < SECONDS:
        time.sleep(0.25)
        size = 0
        for entry in pathlib.Path(slots).iterdir():
            try:
                size += entry.stat().st_size
            except FileNotFoundError:
                pass
        tmpfs = max(tmpfs, size)
        table.row(now, sum(counts.values()), kills, beside.process, tmpfs, beside.status()["store"])
        if early is None and now > min(120, SECONDS / 2):
            early = figures(beside.process)
        if time.monotonic() - killed > min(60, SECONDS / 3):
            killed, kills = time.monotonic(), kills + 1
            server.kill()
            server.start()
        equal(beside.process.poll(), None, "the companion's end")
    stop.set()
    for thread in threads:
        thread.join()
    beside.quiet()
    late = figures(beside.process)
    status = beside.status()
    store = sum(path.stat().st_blocks * 512 for path in (place / "store").rglob("*"))
    print(f"      {sum(counts.values())} requests {counts}, {status['store']['evicted']} blocks evicted; "
          f"MiB, descriptors, threads {early} -> {late}, tmpfs at most {tmpfs / 2**20:.1f} MiB, store {store / 2**20:.1f} MiB", flush=True)
    check(late[0] < early[0] + 64, "memory", early, late)
    check(late[1] < 80, "descriptors", early, late)
    check(late[2] <= early[2] + 8, "threads", early, late)
    check(tmpfs < 256 << 20, "tmpfs", tmpfs)
    check(store <= 64 << 20, "store", store)
    equal(os.listdir(slots), [], "left in the slot folder")
    # The server has some of its own, for what it cannot read.
    ours = [status for status in counts if str(status).startswith("500") and "pass (" not in str(status)]
    check(not ours, ours)
    equal(counts.get("no answer in a minute", 0), 0)
    answer = beside.client.complete(random_tokens(300, 1))
    equal(answer.status, 200)
