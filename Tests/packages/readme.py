#!/usr/bin/env python3
"""Runs the blocks of README.md as they stand: readme.py README FOLDER

The C block becomes a program with what an engine would have around it, is compiled by the line that the README compiles it with, and run
twice. The commands under "Look inside" are run with files in the place of the names in capitals. Lines that build from the sources
(Scripts/…) are left to CI, which builds from a clean clone.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What an engine has: tokens, the size of a region, and where the regions of its blocks are.
BEFORE = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
enum { n = 1024, region_count = 64 };
static uint64_t region_bytes[region_count];
static kvstore_span_t spans[n / 16 * region_count];
static uint32_t tokens[n];
int main(void) {
  for (int i = 0; i < n; i++) tokens[i] = (uint32_t)i;
  for (int i = 0; i < region_count; i++) region_bytes[i] = 1024;
  unsigned char *memory = calloc(n / 16 * region_count, 1024);
  for (int i = 0; i < n / 16 * region_count; i++) spans[i] = (kvstore_span_t){memory + i * 1024, 1024, 1024};
"""
AFTER = """
  fprintf(stderr, "restored %d\\n", (int)result.blocks_done);
  int missing = n / 16 - (int)result.blocks_done;
  kvstore_transfer_t rest = {.struct_size = sizeof rest, .first_block = result.blocks_done, .spans = spans,
                             .span_count = (uint64_t)missing * region_count};
  if (missing > 0 && kvstore_offload(ns, &prompt, &rest, NULL) != KVSTORE_OK) return 2;
  if (kvstore_flush(store, 0, NULL) != KVSTORE_OK || kvstore_close(store) != KVSTORE_OK) return 3;
  free(memory);
  return 0;
}
"""


def fail(text):
    sys.exit(f"FAIL: README: {text}")


def run(line, folder, **more):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=folder, capture_output=True, text=True, **more)
    if done.returncode != 0:
        fail(f"`{line}` ends with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done


def c_program(block, store):
    block = block.replace("/var/cache/my-engine", store)
    include, code = block.split("\n", 1)
    # The store of a test is small.
    code = code.replace("200ull << 30", "1ull << 30")
    return f"{include}\n{BEFORE}{code}{AFTER}"


def main():
    text, folder = Path(sys.argv[1]).read_text(), Path(sys.argv[2]).resolve()
    shutil.rmtree(folder / "STORE", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    blocks = FENCE.findall(text)
    store = str(folder / "STORE")

    (program,) = [code for language, code in blocks if language == "c"]
    (folder / "server.c").write_text(c_program(program, store))
    (compile_line,) = [line for _, code in blocks for line in code.splitlines() if line.startswith("cc ")]
    run(compile_line.replace("cc ", "cc -std=c99 -Wall -Werror ", 1), folder)
    for expected in (0, 63):
        done = run("./a.out", folder)
        if done.stderr.strip() != f"restored {expected}":
            fail(f"the C block says {done.stderr.strip()!r}, not {expected} blocks")

    (folder / "prompt.json").write_text(json.dumps(list(range(500)) + [7] + list(range(501, 1024))))
    message = {"role": "user", "content": "hello"}
    (folder / "requests.jsonl").write_text("".join(json.dumps({"model": "m", "messages": [message] * k}) + "\n" for k in (1, 3)))
    lines = [{"timestamp": i, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2 + i % 2]} for i in range(8)]
    (folder / "TRACE").write_text("".join(json.dumps(line) + "\n" for line in lines))
    count = 0
    shown = text[text.index("## Look inside"):]
    for line in FENCE.search(shown)[2].splitlines():
        command = line.split("#")[0].strip().replace("FOLDER", str(folder))
        command = command.replace("why-miss STORE ...", "why-miss STORE prompt.json")
        if command == "kvstore bench":
            command += " --total 4MiB --runs 1 --stored-blocks 1000"
        if shlex.split(command)[0] != "kvstore":
            fail(f"what is {line!r}?")
        # doctor may find something bad here: that it says so is what it is for.
        run(command + (" || [[ $? == 1 ]]" if " doctor " in command else ""), folder)
        count += 1
    miss = run(f"kvstore inspect why-miss {store} prompt.json", folder).stdout
    for field in ("prompt", "stored", "diverges at", "cause"):
        if not re.search(rf"^{field} +\S", miss, re.MULTILINE):
            fail(f"why-miss prints {miss!r}")
    print(f"README: the C block restores 63 of 64 blocks, one token left to compute, {count} commands run")


main()
