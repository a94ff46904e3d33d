"""Starts real llama-servers and companions, and talks to them. Only Python's own library."""
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SERVER = os.environ["LLAMA_SERVER"]
COMPANION = os.environ["KVSTORE_LLAMA"]
WORK = pathlib.Path(os.environ["KVSTORE_LLAMA_WORK"])
MODELS = WORK / "models"


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(part) for part in what))


def equal(found, wanted, *what):
    check(found == wanted, *what, f"\n   found  {found!r}\n   wanted {wanted!r}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise Failed(f"waited {seconds} s for {what}")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def prefix(self):
        """What the header says: tokens used, tokens of the prompt, tier."""
        text = self.headers.get("x-kvstore-prefix") or ""
        if "/" not in text.split(" ")[0]:
            return None
        used, rest = text.split("/", 1)
        total, tier, _ = rest.split(" ")
        return int(used), int(total), tier


class Client:
    """One address; a connection for each request."""

    def __init__(self, port):
        self.port = port

    def request(self, method, path, body=None, headers=None, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            head = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**head, **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, body, **more):
        return self.request("POST", path, body, **more)

    def complete(self, tokens, count=8, headers=None, **more):
        body = {"prompt": tokens, "n_predict": count, "temperature": 0, "n_probs": 5, **more}
        answer = self.post("/completion", body, headers=headers)
        check(answer.status == 200, "completion:", answer.status, answer.body[:300])
        return answer

    def slots(self):
        return self.get("/slots").json

    def is_up(self):
        try:
            return self.get("/health", timeout=5).status == 200
        except OSError:
            return False


def text_of(answer):
    return answer.json["content"]


def figures(answer):
    """The likeliest tokens of each step, with their logarithms."""
    return [
        [(entry["id"], entry["logprob"]) for entry in step["top_logprobs"]]
        for step in answer.json["completion_probabilities"]
    ]


def cached(answer):
    return answer.json["timings"]["cache_n"]


class Process:
    process = None

    def launch(self, command, name, environment=None):
        log = open(self.place / f"{name}.log", "ab")
        self.process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        log.close()

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
        if self.process:
            status = self.process.wait(60)
            self.process = None
            return status
        return None


class Server(Process):
    def __init__(self, place, kind="attention", *flags, context=8192):
        self.place, self.port = place, free_port()
        self.model = kind if "/" in str(kind) else MODELS / f"{kind}.gguf" if kind else None
        self.context, self.flags = context, list(flags)
        self.slots_folder = place / "slots"
        self.client = Client(self.port)
        self.start()

    def start(self, port=None):
        if not self.slots_folder.exists():
            # On tmpfs, as it should be.
            target = pathlib.Path(tempfile.mkdtemp(prefix="kvstore-llama-test.", dir="/dev/shm"))
            self.slots_folder.symlink_to(target)
        # Without a model it is a router, whose flags say where models are.
        command = [SERVER] + (["-m", str(self.model)] if self.model else []) + ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["-c", str(self.context), "-t", "1", "--slot-save-path", str(self.slots_folder)]
        # No answer without an end, whatever a mutated request says.
        command += ["-n", "16"]
        self.launch(command + self.flags, "server")
        wait_for("llama-server", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failed("llama-server ended: " + (self.place / "server.log").read_text()[-500:])
        return self.client.is_up()


class Companion(Process):
    def __init__(self, place, server, *flags, slots=None):
        self.place, self.server, self.port = place, server, free_port()
        self.flags = list(flags)
        self.slots_folder = slots or server.slots_folder
        self.client = Client(self.port)
        self.start()

    def start(self, attached=True):
        command = [COMPANION, "--server", f"http://127.0.0.1:{self.server.port}"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--store", str(self.place / "store")]
        command += ["--slots", os.path.realpath(self.slots_folder), "--log-level", "debug"]
        # The tiny models compute sooner than anything is restored.
        command += ["--always-restore"]
        # A flag that is given twice counts as it was given last.
        self.launch(command + self.flags, "companion")
        if attached:
            wait_for("the companion", self.is_settled)

    def is_settled(self):
        if self.process.poll() is not None:
            raise Failed("the companion ended: " + (self.place / "companion.log").read_text()[-800:])
        try:
            return self.status()["standing"] in ("attached", "passing")
        except (OSError, ValueError):
            return False

    def key(self):
        if "--api-key" not in self.flags:
            return {}
        return {"Authorization": "Bearer " + self.flags[self.flags.index("--api-key") + 1]}

    def status(self):
        return self.client.get("/kvstore/status", headers=self.key()).json

    def last(self):
        """The last request, once it is settled."""
        self.quiet()
        read = lambda: self.client.get("/kvstore/requests", headers=self.key()).json  # noqa: E731
        return wait_for("a settled request", read)[0]

    def metric(self, name):
        for line in self.client.get("/metrics").body.decode().splitlines():
            if line.split(" ")[0] == name:
                return float(line.split(" ")[1])
        raise Failed(f"no metric {name}")

    def quiet(self):
        """All slots are given back, and what the last answers left is in the store."""

        def is_quiet():
            status = self.status()
            return status["pending"] == 0 and not any(slot["busy"] for slot in status["slots"])

        try:
            wait_for("quiet slots", is_quiet)
        except Failed as problem:
            raise Failed(f"{problem}: {self.status()}; the server's: {self.server.client.slots()}") from None

    def stored(self, count):
        """The store has so many blocks."""
        wait_for(f"{count} blocks", lambda: self.status()["store"]["blocks"] >= count)


def random_tokens(count, seed):
    """A prompt for the tiny models: the first token begins every prompt."""
    source = random.Random(seed)
    return [1] + [source.randrange(260, 354) for _ in range(count - 1)]


def tail_of(path, count=12):
    try:
        return "".join(open(path, errors="replace").readlines()[-count:])
    except OSError:
        return ""


class Between(threading.Thread):
    """Stands between companion and server, and looks at each request's path before it goes on. For controls only.

    - see: is shown each slot action before it goes on.
    - at: is told of each request, by its first line: "asked" before it goes on, "passed" behind that, and "answered" before the
      first of its answer goes back.
    """

    def __init__(self, server, see=lambda data: None, at=lambda when, line: None):
        super().__init__(daemon=True)
        self.server, self.see, self.at = server, see, at
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.slots_folder = server.slots_folder
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        upstream, lines = None, []

        def hang_up():
            # Not close(): another thread waits for this socket.
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

        def back(upstream):
            try:
                while data := upstream.recv(65536):
                    if lines:
                        self.at("answered", lines.pop())
                    client.sendall(data)
            except OSError:
                pass
            if upstream not in replaced:
                hang_up()

        def connect():
            upstream = socket.create_connection(("127.0.0.1", self.server.port))
            threading.Thread(target=back, args=(upstream,), daemon=True).start()
            return upstream

        replaced = set()
        try:
            upstream = connect()
            while data := client.recv(1 << 20):
                # A slot action's request is short: its head and body come at once, or its body right after.
                if b"?action=" in data and b"}" not in data:
                    data += client.recv(65536)
                if b"?action=" in data:
                    replaced.add(upstream)
                    self.see(data)
                    # Who comes out of this may be another server: the request is its.
                    upstream = connect()
                line = None
                if data.startswith((b"GET ", b"POST ")):
                    line = data.split(b"\r\n")[0].decode()
                    self.at("asked", line)
                    lines.append(line)
                upstream.sendall(data)
                if line:
                    self.at("passed", line)
        except OSError:
            pass
        hang_up()


def run_all(tests, wanted):
    failed = skipped = done = 0
    for test in tests:
        name = test.__name__[5:]
        if wanted and name not in wanted:
            continue
        place = pathlib.Path(tempfile.mkdtemp(prefix=name + ".", dir=WORK))
        processes = []
        begin = time.monotonic()
        done += 1
        try:
            test(place, processes)
            for process in processes:
                if isinstance(process, Companion) and process.process:
                    equal(process.kill(signal.SIGTERM), 0, "the companion's end")
            print(f"ok    {name}  {time.monotonic() - begin:.1f} s", flush=True)
        except Skipped as reason:
            skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
        except Exception as problem:  # noqa: BLE001
            failed += 1
            kind = "" if isinstance(problem, Failed) else type(problem).__name__ + ": "
            print(f"FAIL  {name}: {kind}{problem}", flush=True)
            if not isinstance(problem, Failed):
                import traceback

                traceback.print_exc(file=sys.stdout)
            for log in ("companion.log", "server.log"):
                print(f"--- end of {log}\n{tail_of(place / log)}", flush=True)
        finally:
            for process in processes:
                process.kill()
            # Also those of cases that have several servers, below it.
            for folder in [path for path in place.rglob("slots") if path.is_symlink()]:
                shutil.rmtree(os.path.realpath(folder), ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
    print(f"llama-server: {done} tests, {failed} failed, {skipped} skipped")
    return 1 if failed else 0
