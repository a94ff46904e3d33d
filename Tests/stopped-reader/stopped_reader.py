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


def load(seconds, may_be_full=False):
    """Writers and readers that fill the store several times over."""
    done = subprocess.run(
        [os.path.join(folder, "soak"), store, str(seconds), "1", "full"], text=True, capture_output=True
    )
    if may_be_full and done.returncode != 0:
        # The catalog has no page left, so opens and offloads are refused; nothing else may be wrong.
        assert "leased or in use" in done.stderr, done.stderr
        assert "bounded" not in done.stderr and "bytes" not in done.stderr.split(store)[0], done.stderr
        return "the catalog ran full, and the disk stayed in its bound"
    assert done.returncode == 0, done.stderr
    return done.stdout.split(";")[-1].strip()


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

# The worst that a reader can do: it is stopped while it holds a snapshot, so no page that is freed since is used again.
reading, writing = os.pipe()
holder = os.fork()
if holder == 0:
    environment = lmdb.open(os.path.join(store, "catalog.mdb"), subdir=False, readonly=True, create=False)
    transaction = environment.begin()
    os.write(writing, b"x")
    time.sleep(3600)
    os._exit(0)
os.read(reading, 1)
os.kill(holder, signal.SIGSTOP)
assert holder in snapshots()
print("beside a reader that is stopped inside a transaction:", load(6, may_be_full=True))
os.kill(holder, signal.SIGKILL)
os.waitpid(holder, 0)
print("after it:", load(2))
