"""Made-up request traces of different kinds, each from a seed. As a program: traces.py FOLDER [SEED ...] writes them all.

Times are in seconds and lengths in blocks; lengths and pauses are log-normal, given by their median and spread.
"""

import json
import os
import random
import sys


class Blocks:
    """Hands out blocks that nobody has used yet."""

    def __init__(self):
        self.count = 0

    def fresh(self, count):
        self.count += count
        return list(range(self.count - count, self.count))


def around(generator, median, spread):
    return median * generator.lognormvariate(0, spread)


def some(generator, blocks, median, spread):
    return blocks.fresh(1 + int(around(generator, median, spread)))


def chat_with_pauses(generator, blocks):
    """Conversations; of three pauses two are a minute or so, the third is an hour or so."""
    prompts = [blocks.fresh(8) for _ in range(3)]
    begin = 0.0
    for _ in range(1800):
        begin += generator.expovariate(1 / 12)
        time = begin
        path = generator.choice(prompts) + some(generator, blocks, 6, 1)
        goes_on = min(0.95, generator.betavariate(2, 1))
        while True:
            yield time, path
            if generator.random() > goes_on:
                break
            path = path + some(generator, blocks, 4, 1)
            short = generator.random() < 0.7
            time += around(generator, 60, 0.8) if short else around(generator, 4000, 0.8)


def agents(generator, blocks):
    """Tool loops with a pause now and then; sub-agents with prompts of their own run while their agent waits."""
    prompt = blocks.fresh(150)
    prompts = [blocks.fresh(60), blocks.fresh(90)]
    begin = 0.0
    for _ in range(70):
        begin += generator.expovariate(1 / 180)
        time = begin
        path = prompt + some(generator, blocks, 40, 1)
        for _ in range(1 + int(around(generator, 25, 0.9))):
            yield time, path
            path = path + some(generator, blocks, 10, 1.1)
            kind = generator.random()
            if kind < 0.85:
                time += around(generator, 8, 0.9)
            elif kind < 0.93:
                time += around(generator, 150, 1)
            else:
                end = time
                for _ in range(generator.randint(1, 4)):
                    own = generator.choice(prompts) + some(generator, blocks, 9, 0.5)
                    at = time + generator.random() * 3
                    for _ in range(1 + int(around(generator, 8, 0.7))):
                        yield at, own
                        own = own + some(generator, blocks, 12, 1.1)
                        at += around(generator, 7, 0.8)
                    end = max(end, at)
                time = end + 1


def batch(generator, blocks):
    """Jobs that send each document once, behind an instruction of theirs; beside them a few conversations."""
    begin = 0.0
    for _ in range(12):
        instruction = blocks.fresh(generator.randint(5, 60))
        time = begin
        for _ in range(generator.randint(200, 900)):
            time += generator.expovariate(1 / 0.8)
            yield time, instruction + some(generator, blocks, 30, 0.8)
        begin += generator.expovariate(1 / 400)
    end = begin + 600
    begin = 0.0
    prompt = blocks.fresh(12)
    while begin < end:
        begin += generator.expovariate(1 / 15)
        time = begin
        path = prompt + some(generator, blocks, 12, 1)
        while True:
            yield time, path
            if generator.random() > 0.75:
                break
            path = path + some(generator, blocks, 4, 0.8)
            time += around(generator, 70, 0.8)


def retrieval(generator, blocks):
    """One to four shared documents in front of a question; halfway other documents become the popular ones."""
    prompt = blocks.fresh(6)
    documents = [some(generator, blocks, 24, 0.7) for _ in range(1500)]
    weights = [1 / (rank + 3) ** 0.9 for rank in range(1500)]
    begin = 0.0
    for number in range(6000):
        begin += generator.expovariate(1 / 1.5)
        if number == 3000:
            generator.shuffle(documents)
        path = list(prompt)
        for rank in sorted(set(generator.choices(range(1500), weights, k=generator.randint(1, 4)))):
            path += documents[rank]
        path += some(generator, blocks, 2, 0.6)
        time = begin
        while True:
            yield time, path
            if generator.random() > 0.3:
                break
            path = path + some(generator, blocks, 3, 0.6)
            time += around(generator, 40, 0.8)


def mixed(generator, blocks):
    """The four above at once, within two hours."""
    for kind, count in ((chat_with_pauses, 2500), (agents, 900), (batch, 2500), (retrieval, 3000)):
        requests = sorted(kind(generator, blocks), key=lambda request: request[0])[:count]
        first, last = requests[0][0], requests[-1][0]
        for time, path in requests:
            yield (time - first) / (last - first) * 7200, path


def cycle(generator, blocks):
    """300 prompts one after the other, round and round: the worst that can come to least recently used."""
    prompts = [some(generator, blocks, 100, 0.5) for _ in range(300)]
    time = 0.0
    for number in range(6000):
        time += generator.expovariate(1 / 0.7)
        yield time, prompts[number % 300] + blocks.fresh(generator.randint(1, 4))


def recent(generator, blocks):
    """Whoever was here last comes back first: the best that can come to least recently used."""
    time = 0.0
    live = []
    for _ in range(8000):
        time += generator.expovariate(1)
        if not live or generator.random() < 0.12:
            live.append(some(generator, blocks, 17, 0.8))
        path = live.pop(-1 - min(len(live) - 1, int(generator.expovariate(1 / 30))))
        yield time, path
        live.append(path + some(generator, blocks, 2, 0.8))


KINDS = (chat_with_pauses, agents, batch, retrieval, mixed, cycle, recent)


def write(kind, seed, folder):
    requests = sorted(kind(random.Random(seed), Blocks()), key=lambda request: request[0])
    path = os.path.join(folder, f"{kind.__name__}-{seed}.jsonl")
    ids = {}
    with open(path, "w", encoding="ascii") as file:
        for time, blocks in requests:
            # The same block behind another one is another block.
            parent = -1
            chained = []
            for block in blocks:
                parent = ids.setdefault((parent, block), len(ids))
                chained.append(parent)
            line = {
                "timestamp": int(time * 1000),
                "input_length": 64 * len(chained),
                "output_length": 100,
                "hash_ids": chained,
                "block_size": 64,
            }
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    return path


if __name__ == "__main__":
    for seed in [int(text) for text in sys.argv[2:]] or [1, 2]:
        for kind in KINDS:
            print(write(kind, seed, sys.argv[1]))
