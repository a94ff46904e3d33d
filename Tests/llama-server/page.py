"""The commands of docs/engines/llama-server.md, as they stand there."""
import signal
import subprocess
import sys
import tempfile

from harness import COMPANION, HERE, MODELS, SERVER, Client, Companion, Server, check, equal, free_port, random_tokens, wait_for

sys.path.append(str(HERE.parents[1] / "Integrations/python/tests"))

from documented import command, commands, others  # noqa: E402

PAGE = "llama-server.md"


class DocumentedServer(Server):
    def __init__(self, place, words):
        self.place, self.words, self.port = place, words, int(words[words.index("--port") + 1])
        self.client = Client(self.port)
        self.start()

    def start(self, port=None):
        # What a small machine needs comes behind.
        self.launch([SERVER, *self.words[1:], "-c", "8192", "-t", "1"], "server")
        wait_for("llama-server", self.is_ready)


class DocumentedCompanion(Companion):
    def __init__(self, place, words):
        self.place, self.words, self.flags = place, words, []
        self.port = int(words[words.index("--listen") + 1].split(":")[1])
        self.client = Client(self.port)
        self.start()

    def start(self, attached=True):
        # The tiny models compute sooner than anything is restored.
        self.launch([COMPANION, *self.words[1:], "--always-restore"], "companion")
        wait_for("the companion", self.is_settled)


def test_the_page_s_commands(place, processes):
    """Folder, server and companion by the page; both are killed and started by it again, and the prompt comes from the store."""
    equal(others(PAGE, "mkdir", "llama-server", "kvstore-llama"), [])
    equal(len(commands(PAGE)), 3)
    slots = tempfile.mkdtemp(prefix="kvstore-llama-test.", dir="/dev/shm")
    (place / "slots").symlink_to(slots)
    port, listen = str(free_port()), str(free_port())
    folder = {"/dev/shm/kvstore-llama": slots + "/page"}
    subprocess.run(command(PAGE, "mkdir", folder), check=True)
    model = {"model.gguf": str(MODELS / "attention.gguf")}
    server = DocumentedServer(place, command(PAGE, "llama-server", {**folder, **model, "8080": port}))
    processes.append(server)
    places = {**folder, "/var/cache/kvstore": str(place / "store"), "8080": port, "8081": listen}
    beside = DocumentedCompanion(place, command(PAGE, "kvstore-llama", places))
    processes.append(beside)
    prompt = random_tokens(600, 5)
    first = beside.client.complete(prompt)
    equal(first.prefix[0], 0)
    beside.quiet()
    beside.stored(9)
    for one in (beside, server):
        one.kill(signal.SIGKILL)
    server.start()
    beside.start()
    again = beside.client.complete(prompt)
    check(again.prefix[0] >= 512 and again.prefix[2] == "disk", again.prefix)
