"""Machines that are network namespaces, joined to this one by links with a delay; and a relay with a delay for loopback.

The kernel's own delay (netem) is a module that many kernels lack. Here each link is a pair of TUN devices, and packets are
passed on by this process when their time has come. Everything is gone when the process is, however it ends.
"""
import collections
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import threading
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MTU = 65000
PR_SET_PDEATHSIG = 1


class Pipe:
    """One direction: what `read` gives goes to `write` so many seconds later, in order, however much is under way."""

    def __init__(self, read, write, delay):
        self.read, self.write, self.delay = read, write, delay
        self.pieces, self.changed, self.ended = collections.deque(), threading.Condition(), False
        for work in (self._take, self._give):
            threading.Thread(target=work, daemon=True).start()

    def _take(self):
        while not self.ended:
            try:
                piece = self.read()
            except OSError:
                piece = b""
            with self.changed:
                self.pieces.append((time.monotonic() + self.delay(), piece))
                self.changed.notify()
            if not piece:
                return

    def _give(self):
        while True:
            with self.changed:
                while not self.pieces:
                    self.changed.wait()
                due, piece = self.pieces.popleft()
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            try:
                self.write(piece)
            except OSError:
                # A device that is full drops a packet; a connection that is gone takes no more.
                pass
            if not piece:
                self.ended = True
                return


def end_with_parent():
    """In a child before its program runs: it does not outlive us."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def quiet(*words):
    subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)


class Machine:
    """A network namespace of its own, with a link to this one. `delay` is that of one way, in seconds, and may be changed."""

    def __init__(self, number, delay=0.0):
        self.delay = delay
        self.address, self.here = f"10.77.{number}.2", f"10.77.{number}.1"
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=end_with_parent)
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            if self.holder.poll() is not None:
                raise OSError("a network namespace could not be made")
            time.sleep(0.005)
        near, far = self._device(f"kvnear{number}"), self._device(f"kvfar{number}")
        quiet("ip", "link", "set", f"kvfar{number}", "netns", self.holder.pid)
        self._up((), f"kvnear{number}", self.here)
        self._up(self.command(), f"kvfar{number}", self.address)
        quiet(*self.command("ip", "link", "set", "lo", "up"))
        for one, other in ((near, far), (far, near)):
            Pipe(lambda one=one: os.read(one, MTU + 100), lambda piece, other=other: os.write(other, piece), lambda: self.delay)

    @staticmethod
    def _device(name):
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        return file

    @staticmethod
    def _up(before, name, address):
        quiet(*before, "ip", "address", "add", f"{address}/30", "dev", name)
        quiet(*before, "ip", "link", "set", name, "mtu", MTU, "txqueuelen", 10_000, "up")

    def command(self, *words):
        """The command line that runs these words there."""
        return ["nsenter", "-t", str(self.holder.pid), "-n", "--", *map(str, words)]

    def url(self, port):
        """Of a server here that listens on `here`, as the machine sees it."""
        return f"redis://{self.here}:{port}"

    def close(self):
        self.holder.kill()
        self.holder.wait()


class Loopback:
    """The same without namespaces: a relay on 127.0.0.1, whose connections have the delay."""

    def __init__(self, server_port, delay=0.0):
        self.delay, self.server_port = delay, server_port
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), 10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Pipe(lambda one=one: one.recv(1 << 18), lambda piece, other=other: self._send(other, piece), lambda: self.delay)

    @staticmethod
    def _send(other, piece):
        if piece:
            other.sendall(piece)
        else:
            other.shutdown(socket.SHUT_WR)

    def command(self, *words):
        return list(map(str, words))

    def url(self, port):
        return f"redis://127.0.0.1:{self.listener.getsockname()[1]}"

    def close(self):
        self.listener.close()
