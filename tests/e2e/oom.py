"""A daemon in which a chosen allocation fails: see oom.c, which does the failing."""

import mmap
import os
import struct
import subprocess
import tempfile

from harness import BINARY, Daemon

SHIM = os.path.join(os.path.dirname(BINARY), "oom.so")
AT, WIDTH, SEEN, FAILED, ALIVE = range(5)


class Control:
    """The five numbers of oom.c, shared with the process that runs under it."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="vramd-oom-")
        self.file.truncate(4096)
        self.map = mmap.mmap(self.file.fileno(), 4096)

    def get(self, i):
        return struct.unpack_from("<q", self.map, 8 * i)[0]

    def set(self, i, v):
        struct.pack_into("<q", self.map, 8 * i, v)

    def arm(self, at, width=1):
        self.set(AT, 0)
        for i, v in ((SEEN, 0), (FAILED, 0), (WIDTH, width), (AT, at)):
            self.set(i, v)

    def disarm(self):
        """How many failed, and how many there were."""
        self.set(AT, 0)
        return self.get(FAILED), self.get(SEEN)

    def env(self):
        return {**os.environ, "LD_PRELOAD": SHIM, "OOM_FILE": self.file.name}
