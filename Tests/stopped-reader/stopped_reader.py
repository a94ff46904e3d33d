"""A full store under load beside an `inspect` that is stopped in the middle of its output, and beside a reader that is stopped
inside a read transaction of the catalog. The load (Tests/soak) fails when the disk goes over its bound or anything is wrong.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time

import lmdb

F_SETPIPE_SZ = 1031
folder, kvstore = sys.argv[1:]
store = os.path.join(folder, "store")


def start(seconds):
    """Writers and readers that fill the store several times over."""
    arguments = [os.path.join(folder, "soak"), store, str(seconds), "1", "full"]
    return subprocess.Popen(arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(soak, may_be_full=False):
    output, errors = soak.communicate()
    if may_be_full and soak.returncode != 0:
        # The catalog has no page left, so opens and offloads are refused; nothing else may be wrong.
        assert "leased or in use" in errors, errors
        for fault in ("not bounded", "wrong bytes", "confirmed", "restore", "not refused"):
            assert fault not in errors, errors
        return "the catalog ran full, and the disk stayed in its bound"
    assert soak.returncode == 0, errors
    return output.split(";")[-1].strip()


def load(seconds):
    return end(start(seconds))


def snapshots():
    """The processes that hold a snapshot of the catalog, by LMDB's own table of readers."""
    environment = lmdb.open(os.path.join(store, "catalog.mdb"), subdir=False, readonly=True, create=False)
    lines = environment.readers().splitlines()[1:]
    environment.close()
    return {int(line.split()[0]) for line in lines if line.split()[-1] != "-"}


load(2)

# Its output goes into a pipe that nobody reads, so it stops in the middle by itself; then it is stopped for good.
inspect = subprocess.Popen([kvstore, "inspect", "tree", store, "--json"], stdout=subprocess.PIPE)
fcntl.fcntl(inspect.stdout, F_SETPIPE_SZ, 4096)
time.sleep(1)
assert inspect.poll() is None, "the tree fitted into a pipe of one page: nothing was stopped"
os.kill(inspect.pid, signal.SIGSTOP)
assert inspect.pid not in snapshots(), "inspect holds a snapshot while it waits for its reader"
print("beside a stopped inspect, which holds no snapshot:", load(4))
os.kill(inspect.pid, signal.SIGCONT)
rest = inspect.communicate(timeout=60)[0]
assert inspect.returncode == 0 and rest, "inspect did not end well"

# The worst that a reader can do: it is stopped while it holds a snapshot, so no page that is freed since is used again. It comes while
# the store is open, since LMDB's own tools find the lock file of its processes only then.
soak = start(8)
deadline = time.monotonic() + 60
while not os.path.exists(os.path.join(store, "catalog.mdb-lock")):
    assert time.monotonic() < deadline, "nobody opened the store"
    time.sleep(0.01)
reading, writing = os.pipe()
holder = os.fork()
if holder == 0:
    try:
        environment = lmdb.open(os.path.join(store, "catalog.mdb"), subdir=False, readonly=True, create=False)
        transaction = environment.begin()
        os.write(writing, b"x")
        time.sleep(3600)
    finally:
        os._exit(1)
os.close(writing)
assert os.read(reading, 1) == b"x", "the reader could not open the catalog"
os.kill(holder, signal.SIGSTOP)
assert holder in snapshots()
print("beside a reader that is stopped inside a transaction:", end(soak, may_be_full=True))
os.kill(holder, signal.SIGKILL)
os.waitpid(holder, 0)
print("after it:", load(2))
