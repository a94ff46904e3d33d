"""What `--record-text` writes, and that `kvstore lint` reads it."""
import json
import os
import signal
import stat
import subprocess

from harness import Companion, check, equal, wait_for
from support import SYSTEM, Stream, chat, pair, said


def test_record_text(place, processes):
    path = place / "requests.jsonl"
    server, beside = pair(place, processes, "attention", "-np", "1", "--jinja", companion=("--record-text", str(path)))
    sent = []

    def post(where, body, *statuses):
        sent.append((where, body))
        answer = beside.client.post(where, body)
        check(answer.status in statuses, where, answer.status, answer.body[:300])
        beside.quiet()
        return answer

    # A conversation whose second step has another time in front, and a third one that goes on from it.
    talk = [{"role": "system", "content": f"It is 21:48. {SYSTEM}"}, {"role": "user", "content": "What is the first file?"}]
    for step, minute in enumerate((48, 49, 49)):
        talk[0]["content"] = f"It is 21:{minute}. {SYSTEM}"
        body = {"messages": [dict(m) for m in talk], "max_tokens": 4, "temperature": 0}
        answer = post("/v1/chat/completions", body, 200)
        talk += [{"role": "assistant", "content": said(answer) or "Yes."}, {"role": "user", "content": f"And the file after that one, number {step}?"}]
    post("/v1/messages", {"system": SYSTEM, "messages": [{"role": "user", "content": "Zürich, 東京, \U0001f600\nand \"quotes\""}], "max_tokens": 4}, 200)
    post("/v1/responses", {"instructions": SYSTEM, "input": "one", "max_output_tokens": 16}, 200)
    post("/v1/responses", {"instructions": SYSTEM, "input": "two", "previous_response_id": "resp_1"}, 200, 400, 501)
    post("/completion", {"prompt": "plain words, all of them new " * 20, "n_predict": 4}, 200)
    post("/completion", {"prompt": [1] + list(range(260, 350)), "n_predict": 4}, 200)
    stream = Stream(beside.port, {"prompt": "streamed words " * 30, "n_predict": 4, "stream": True})
    sent.append(("/completion", {"prompt": "streamed words " * 30, "n_predict": 4, "stream": True}))
    check(stream.is_whole(), "the stream breaks off")
    stream.leave()
    # Written over many lines, and cut off: what is no JSON harms no other line.
    indented = json.dumps({"messages": talk[:2], "max_tokens": 4}, indent=2).replace("\n", "\r\n").encode()
    equal(beside.client.post("/v1/chat/completions", indented).status, 200)
    sent.append(("/v1/chat/completions", json.loads(indented)))
    check(beside.client.post("/v1/chat/completions", b'{"messages": [{"role": "user", "cont').status >= 400, "a cut body is answered")
    beside.quiet()

    def lines():
        found = []
        for line in path.read_bytes().split(b"\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    wait_for("all lines", lambda: len(lines()) >= len(sent))
    equal(stat.S_IMODE(path.stat().st_mode), 0o600, "the file's mode")
    key = lambda entry: json.dumps(entry, sort_keys=True)  # noqa: E731
    equal(sorted(key((line["path"], line["request"])) for line in lines()), sorted(key(entry) for entry in sent), "what was sent")
    for line in lines():
        check(line["time"] > 1.7e9, line)
        if "computed" in line:
            equal(line["cached"] + line["computed"], line["tokens"], line["path"])
    check(sum("computed" in line for line in lines()) >= 8, lines())

    # What is there stays: one appends.
    count = len(lines())
    equal(beside.kill(signal.SIGTERM), 0)
    beside.start()
    chat(beside.client, talk[:2])
    wait_for("one line more", lambda: len(lines()) == count + 1)
    equal(beside.kill(signal.SIGTERM), 0)

    command = os.path.join(os.environ["KVSTORE_PREFIX"], "bin", "kvstore")
    if os.path.exists(command):
        done = subprocess.run([command, "lint", path, "--json"], capture_output=True, text=True)
        equal(done.returncode, 0, done.stderr[-300:])
        document = json.loads(done.stdout)
        equal((document["requests"], document["skipped_lines"]), (count + 1, 1), document["skipped"])
        found = [(f["kind"], f["path"]) for f in document["findings"]]
        equal(found, [("volatileValue", "messages[0].content")], document["findings"])

    # Not through a link that somebody else may have made.
    link = place / "link.jsonl"
    link.symlink_to(path)
    other = Companion.__new__(Companion)
    other.__dict__.update(beside.__dict__)
    other.flags = ["--record-text", str(link)]
    other.start(attached=False)
    processes.append(other)
    check(other.process.wait(30) != 0, "a link is followed")
    other.process = None
