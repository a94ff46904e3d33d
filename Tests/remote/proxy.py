"""A TCP proxy between a client and a server that does to the server's answers what networks and liars do."""
import random
import select
import socket
import struct
import threading
import time


class Proxy:
    """Listens on 127.0.0.1:port. Each fault counts bytes of one connection, in one direction ("down": from the server).

    delay      seconds by which every piece comes later
    cut        after so many bytes the connection ends (FIN)
    reset      after so many bytes it is reset (RST)
    stall      after so many bytes nothing more comes
    flip       the byte of this number has one bit changed
    silent     connections are taken, nothing is passed on
    """

    def __init__(self, server_port, direction="down", **faults):
        self.server_port, self.direction, self.faults = server_port, direction, dict(faults)
        self.seed = random.Random(1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = []
        self.lock = threading.Lock()
        self.ended = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.ended = True
        self.listener.close()
        self.drop()

    def set(self, **faults):
        """Faults of connections to come, in place of those before; the ones that are open end."""
        self.faults = dict(faults)
        self.drop()

    def drop(self):
        with self.lock:
            sockets, self.open = self.open, []
        # Their threads see the end and close them.
        for one in sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def url(self, scheme="redis"):
        return f"{scheme}://127.0.0.1:{self.port}"

    def _accept(self):
        while not self.ended:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            faults = dict(self.faults)
            if faults.get("silent"):
                with self.lock:
                    self.open.append(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), 10)
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, faults), daemon=True).start()

    def _pass(self, client, server, faults):
        """Both ways of a connection in one thread: a socket that nobody reads can be reset."""
        count = 0
        other = {client: server, server: client}
        try:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    piece = source.recv(65536)
                    if not piece:
                        return
                    if "delay" in faults:
                        time.sleep(faults["delay"])
                    if (source is server) == (self.direction == "down"):
                        if "flip" in faults and count <= faults["flip"] < count + len(piece):
                            changed = bytearray(piece)
                            changed[faults["flip"] - count] ^= 1 << self.seed.randrange(8)
                            piece = bytes(changed)
                        for fault in ("cut", "reset", "stall"):
                            if fault in faults and count + len(piece) >= faults[fault]:
                                other[source].sendall(piece[: faults[fault] - count])
                                if fault == "reset":
                                    # SO_LINGER of 0 seconds: without a word about what is still on its way.
                                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                                while fault == "stall" and not self.ended and client in self.open:
                                    time.sleep(0.02)
                                return
                        count += len(piece)
                    other[source].sendall(piece)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open = [one for one in self.open if one not in (client, server)]
            client.close()
            server.close()
