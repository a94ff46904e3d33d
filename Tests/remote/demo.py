"""The arms of Scripts/demo-remote, their comparison and the table; see its --help."""
import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import servers
from link import Loopback, Machine

ROOT = Path(__file__).resolve().parents[2]
LAST = 16
ROUND_TRIPS_MS = (1, 10)


class Failed(Exception):
    """What went wrong, in words."""


class Demo:
    def __init__(self, options):
        self.options, self.folder = options, options.folder
        # A check is to take less than a minute.
        self.whole = 1024 if options.check else 2048
        self.prompt = self.whole + LAST
        self.threads = min(4, os.cpu_count() or 1)
        text = ROOT / "LICENSE"
        self.text = text if text.exists() else Path("/usr/share/common-licenses/Apache-2.0")

    def tell(self, words):
        if not self.options.check:
            print(words, flush=True)

    def demo(self, machine, *words):
        done = subprocess.run(machine.command(self.folder / "build/demo", *words), capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(map(str, words[:3]))}: {done.stderr.strip() or done.returncode}")
        return json.loads(done.stdout)

    def arm(self, machine, name, mode, store=None, url=None, wait_ms=60_000):
        """One arm; its logits are compared with those that were computed first."""
        logits = self.folder / f"{name}.logits"
        words = [mode, "--model", self.options.model, "--weights-sha256", self.options.weights, "--text", self.text]
        words += ["--prompt-tokens", self.whole, "--threads", self.threads, "--logits", logits, "--json"]
        if store:
            words += ["--store", store]
        if url:
            words += ["--remote", url, "--remote-wait-ms", wait_ms]
        answer = self.demo(machine, *words)
        (self.folder / f"{name}.json").write_text(json.dumps(answer))
        content = logits.read_bytes()
        logits.unlink()
        if mode == "reference":
            self.reference = content
        elif content != self.reference:
            raise Failed(f"the logits of {name} differ from computed ones: WRONG KV")
        return answer

    def expect(self, name, answer, **fields):
        for field, wanted in fields.items():
            if answer[field] != wanted:
                raise Failed(f"{name}: {field} is {answer[field]}, expected {wanted}: {answer}")

    def empty_store(self, name):
        """A store that has everything but blocks: to make one is no part of a request."""
        store = self.folder / name
        command = [self.options.prefix / "bin/kvstore", "init", store, "--capacity", "1GiB"]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return store

    def round_trip_ms(self, machine, url):
        ping = [self.options.prefix / "bin/kvstore", "remote", "ping", url, "--count", "20", "--json"]
        done = subprocess.run(machine.command(*ping), check=True, capture_output=True, text=True)
        return 1000 * json.loads(done.stdout)["median_seconds"]

    def run(self, server, a, b, runs):
        self.tell(f"computed: machine A computes {self.prompt:,} tokens, without a store ...")
        computed = self.arm(a, "computed", "reference")
        store = self.folder / "a"
        self.tell("offloaded: the same, into a store that sends them to the server ...")
        cold = self.arm(a, "offloaded", "cold", store, a.url(server.port))
        self.expect("offloaded", cold, tokens_stored=self.whole, blocks_durable=self.whole // 64)
        if not cold["chunks_sent"]:
            raise Failed(f"nothing was sent to the server: {cold}")
        disk = []
        for number in range(runs):
            self.tell(f"disk, run {number + 1} of {runs}: machine A restores it from its own store ...")
            self.demo(a, "drop-cache", "--store", store)
            disk.append(self.arm(a, f"disk-{number}", "restored", store))
            self.expect("disk", disk[-1], tokens_restored=self.whole, tokens_decoded=LAST, chunks_fetched=0)
        remote, pings = {}, {}
        for milliseconds in ROUND_TRIPS_MS[:1] if self.options.check else ROUND_TRIPS_MS:
            b.delay = milliseconds / 2000
            pings[milliseconds] = self.round_trip_ms(b, b.url(server.port))
            remote[milliseconds] = []
            for number in range(runs):
                self.tell(f"remote, {milliseconds} ms, run {number + 1} of {runs}: machine B, an empty store ...")
                name = f"remote-{milliseconds}-{number}"
                found = self.arm(b, name, "restored", self.empty_store(name), b.url(server.port))
                self.expect(
                    name, found, tokens_restored=self.whole, tokens_decoded=LAST, chunks_fetched=cold["chunks_sent"],
                    blocks_host=self.whole // 64,
                )
                remote[milliseconds].append(found)
                shutil.rmtree(self.folder / name)
        b.delay = 0.0005
        lost = {}
        for name, end in (("stopped", server.stop), ("dead", server.kill)):
            self.tell(f"{name}: machine B, an empty store, and a server that is {name} ...")
            if name == "dead":
                server.go_on()
            end()
            lost[name] = self.arm(b, name, "restored", self.empty_store(name), b.url(server.port), 2000)
            self.expect(name, lost[name], tokens_restored=0, tokens_decoded=self.prompt)
        return computed, cold, disk, remote, pings, lost

    def report(self, where, computed, cold, disk, remote, pings, lost):
        def of(rows, field):
            return statistics.median(row[field] for row in rows)

        def spread(rows):
            return f"{min(row['ttft_ms'] for row in rows):.0f}–{max(row['ttft_ms'] for row in rows):.0f}"

        if self.options.check:
            (milliseconds, rows), = remote.items()
            print(
                f"remote tier, real engine: {self.whole} of {self.prompt} tokens restored by another machine ({where}), "
                f"logits identical; first token after {of(rows, 'ttft_ms'):.0f} ms at {milliseconds} ms of round trip, "
                f"{computed['ttft_ms']:.0f} ms computed, {of(disk, 'ttft_ms'):.0f} ms from disk; "
                "stopped and dead servers are computed around"
            )
            return
        columns = [("computed", [computed]), ("disk, A", disk)]
        columns += [(f"remote {milliseconds} ms", rows) for milliseconds, rows in remote.items()]
        columns += [(f"{name}", [row]) for name, row in lost.items()]

        def line(name, cells):
            print(f"  {name:<30}" + "".join(f"{cell:>14}" for cell in cells))

        print(f"\nllama.cpp, Gemma 3 270M Q4_K_M, a prompt of {self.prompt:,} tokens; {where}\n")
        line("", [name for name, _ in columns])
        line("time to first token", [f"{of(rows, 'ttft_ms'):,.0f} ms" for _, rows in columns])
        line(f"  least and most of {len(disk)}", [spread(rows) if len(rows) > 1 else "-" for _, rows in columns])
        line("  of that, waited for the server", [f"{of(rows, 'remote_wait_ms'):.0f} ms" for _, rows in columns])
        line("tokens restored", [f"{of(rows, 'tokens_restored'):,.0f}" for _, rows in columns])
        line("tokens llama.cpp decoded", [f"{of(rows, 'tokens_decoded'):,.0f}" for _, rows in columns])
        line("chunks, and bytes fetched", [
            f"{of(rows, 'chunks_fetched'):.0f}, {of(rows, 'remote_bytes') / 1e6:.1f} MB" if of(rows, "chunks_fetched") else "-"
            for _, rows in columns
        ])
        print()
        for milliseconds, ping in pings.items():
            print(f"  link of {milliseconds} ms: a look-up of 64 names takes {ping:.1f} ms (median of 20)")
        print(f"  sending took machine A {cold['send_ms'] / 1000:.1f} s behind its answer, two of them to see that it was all")
        print("  logits of 9 positions: IDENTICAL in all arms, bit for bit\n")


def main():
    parser = argparse.ArgumentParser()
    for name in ("folder", "prefix", "model"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--runs", type=int)
    options = parser.parse_args()
    # So that servers, namespaces and the folder go then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs = options.runs or (1 if options.check else 5)
    programs = servers.programs()
    demo = Demo(options)
    with contextlib.ExitStack() as ends:
        if not options.keep:
            ends.callback(shutil.rmtree, options.folder, ignore_errors=True)
        if not programs:
            print("remote tier, real engine: skipped: neither redis-server nor valkey-server can be had")
            return 0 if options.check else 1
        started = ends.enter_context(servers.Servers())
        program = next(iter(programs.values()))
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
            a, b = (ends.enter_context(contextlib.closing(Machine(number))) for number in (1, 2))
            server = started.server(program, "--bind", "127.0.0.1", a.here, b.here)
            where = "machines are network namespaces"
        except (OSError, subprocess.CalledProcessError) as reason:
            demo.tell(f"no network namespaces here ({reason}): loopback and a relay with a delay")
            server = started.server(program)
            a, b = (ends.enter_context(contextlib.closing(Loopback(server.port))) for _ in range(2))
            where = "NOT two machines: loopback, and a relay with the delay"
        try:
            demo.report(where, *demo.run(server, a, b, runs))
        except (Failed, subprocess.CalledProcessError, KeyboardInterrupt) as reason:
            print(f"\ndemo-remote: FAILED: {reason or 'interrupted'}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
