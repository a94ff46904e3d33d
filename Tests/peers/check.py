"""The driver of Benchmarks/peers on a few blocks, and its measures on stores that lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from beside import environments, measures, report
from beside.peer import Peer
from beside.peers import PEERS

FOLDER = Path(sys.argv[1])
RUN = environments.HERE / "run"


def run(out: str, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    stores = FOLDER / "stores"
    stores.mkdir(exist_ok=True)
    command = [str(RUN), "--no-setup", "--path", str(stores), "--out", str(FOLDER / out), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == code, ended.stderr
    assert not list(stores.iterdir()), "stores are left behind"
    rows = FOLDER / out / "rows.jsonl"
    return [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []


def of(rows: list[dict[str, Any]], measure: str) -> dict[str, dict[str, Any]]:
    return {row["peer"]: row for row in rows if row["measure"] == measure}


def test_every_block_is_verified() -> None:
    names = "kvstore,files,files-fsync,lmdb,lmcache-fs,vllm-fs"
    rows = run("few", "--peers", names, "--total", "5", "--scale-blocks", "9216")
    assert not [row for row in rows if "error" in row], rows
    present = {"kvstore", "files", "files-fsync", "lmdb"}
    if not Path("/usr/include/lmdb.h").exists():
        present.discard("lmdb")
    assert set(of(rows, "missing")) == set(names.split(",")) - present
    assert set(of(rows, "get")) == present
    for row in rows:
        if row["measure"] == "get":
            for one in (row["cold"], *row["warm"]):
                assert (one["right"], one["wrong"], one["missed"]) == (row["blocks"], 0, 0), row
        if row["measure"] == "put":
            assert row["written_bytes"] >= row["blocks"] * row["block_bytes"] or "tmpfs" in str(rows[0]), row
    for row in of(rows, "first_hit").values():
        found = [row["lookups"][count]["found"] for count in ("32000", "131072")]
        assert row["right"] == 1 and found == [32_000, 131_072], row
    kills, flips = of(rows, "kill"), of(rows, "flip")
    assert set(kills) == set(flips) == present
    for name, row in kills.items():
        assert row["acknowledged"] > 0 and row["acknowledged_right"] == row["acknowledged"] and not row["wrong"], row
        assert flips[name]["places"] == 1, flips[name]
    assert (flips["kvstore"]["damaged_block"], flips["kvstore"]["wrong"]) == ("missed", 0), flips
    assert (flips["files"]["damaged_block"], flips["files"]["wrong"]) == ("returned", 1), flips
    text = (FOLDER / "few/report.md").read_text()
    assert "**LMCache L2, fs**: not measured" in text and "**vLLM's fs tier**: not measured" in text, text
    assert text == report.markdown(rows)
    picture = xml.etree.ElementTree.fromstring((FOLDER / "few/peers.svg").read_text())
    words = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert "kvstore" in words and "LMCache L2, fs" not in words, words


def processes() -> list[str]:
    """Those whose environment names the test's folder, this one left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(FOLDER / "ended") in text:
            found.append(path.parent.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_nothing_is_left_when_it_is_ended() -> None:
    stores, out = FOLDER / "stores", FOLDER / "ended"
    command = [str(RUN), "--no-setup", "--path", str(stores), "--out", str(out), "--peers", "files,kvstore"]
    with subprocess.Popen([*command, "--parts", "data", "--rounds", "1000"], stderr=subprocess.DEVNULL) as running:
        rows, end = out / "rows.jsonl", time.monotonic() + 300
        while not (rows.is_file() and '"put"' in rows.read_text()) and time.monotonic() < end:
            time.sleep(0.05)
        assert processes() and list(stores.iterdir())
        running.terminate()
        assert running.wait(120) == 143
    assert not list(stores.iterdir()), "stores are left behind"
    end = time.monotonic() + 60
    while processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not processes(), processes()


def test_a_name_that_is_none_is_refused() -> None:
    assert run("none", "--peers", "files,nonesuch", code=1) == []


class Lying(Peer):
    """Says that it has everything."""

    name, title, durability = "lying", "lying", "none"
    stored: ClassVar[dict[bytes, Any]] = {}

    def open(self, memory: Any) -> None:
        pass

    def put(self, keys: Any, first: int, blocks: Any) -> None:
        self.stored.update(zip(keys[first : first + len(blocks)], blocks.copy(), strict=True))

    def get(self, keys: Any, first: int, target: Any) -> Any:
        for index in range(len(target)):
            target[index] = self.stored[keys[first + index]]
        return np.ones(len(target), bool)


class Confusing(Lying):
    """Answers the first block for the third."""

    def get(self, keys: Any, first: int, target: Any) -> Any:
        hits = super().get(keys, first, target)
        if first == 0 and len(target) > 2:
            target[2] = target[0]
        return hits


class Forgetting(Lying):
    """Has no second block, and leaves its memory as it is."""

    def get(self, keys: Any, first: int, target: Any) -> Any:
        hits = super().get(keys, first, target)
        hits[1] = False
        return hits


def test_lies_are_counted() -> None:
    folder = FOLDER / "lies"
    folder.mkdir()
    request = {"folder": str(folder), "block_bytes": 4096, "blocks": 20, "seed": 1}
    for kind, expected in ((Lying, (20, 0, 0)), (Confusing, (19, 1, 0)), (Forgetting, (19, 0, 1))):
        measures.put(kind, request)
        answer = measures.get(kind, request)
        for one in (answer["cold"], *answer["warm"]):
            assert (one["right"], one["wrong"], one["missed"]) == expected, (kind, one)


def test_a_flipped_bit_is_found_by_its_bytes() -> None:
    folder = FOLDER / "flip"
    folder.mkdir()
    request = {"folder": str(folder), "block_bytes": 4096, "blocks": 20, "seed": 1, "damaged": 7}
    from beside import workload

    blocks = workload.payload(20, 4096, 1)
    (folder / "file").write_bytes(b"head" + blocks.tobytes())
    assert measures.flip(request) == {"places": 1}
    changed = (folder / "file").read_bytes()
    assert [i for i, (a, b) in enumerate(zip(changed, b"head" + blocks.tobytes(), strict=True)) if a != b] == [
        4 + 7 * 4096 + 2048
    ]
    assert measures.flip(request) == {"places": 0}


def test_spreads() -> None:
    assert (report.spread([2.0, 3.0, 4.0]), report.spread([0.0, 0.0]), report.spread([1.0])) == (" (67 %)", "", "")


def test_names_are_unique() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS) == len({peer.title for peer in PEERS})


def main() -> None:
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for _, test in tests:
        test()
    print(f"peers: {len(tests)} tests passed")


if __name__ == "__main__":
    main()
