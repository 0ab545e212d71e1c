"""Where replicas run: on loopback, or each in a network namespace of its own, behind a link with delay and loss.

The link is a pair of TUN devices and a relay between them, since netem is a module that many kernels lack. A
namespace is that of a thread: processes that the thread starts live in it, and it ends with them."""

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000


def unshare_network():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def open_tun(name, address, peer):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "addr", "add", address, "peer", peer, "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up", "txqueuelen", "10000"], check=True)
    return fd


class Namespace:
    """A thread in a network namespace of its own, linked to that of the process."""

    def __init__(self, address, front, name, delay_ms, loss):
        self.thread = ThreadPoolExecutor(1)
        self.address, self.port = address, 8000
        near = open_tun(name, front, address)
        self.thread.submit(unshare_network).result()
        far = self.thread.submit(open_tun, name, address, front).result()
        self.relay = subprocess.Popen([sys.executable, __file__, str(near), str(far), str(delay_ms), str(loss)],
                                      pass_fds=(near, far))
        os.close(near), os.close(far)

    def popen(self, command, **more):
        return self.thread.submit(subprocess.Popen, command, **more).result()

    def close(self):
        self.relay.kill(), self.relay.wait()
        self.thread.shutdown()


class Loopback:
    def __init__(self):
        self.address, self.port = "127.0.0.1", free_port()

    def popen(self, command, **more):
        return subprocess.Popen(command, **more)

    def close(self):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def places(n, loopback, delay_ms, loss):
    """Of n replicas. The namespaces have the addresses of the files in deploy/; the process moves to one, too."""
    if loopback:
        return [Loopback() for _ in range(n)]
    unshare_network()
    return [Namespace(f"10.0.0.{i + 1}", "10.0.0.254", f"replica{i + 1}", delay_ms, loss) for i in range(n)]


def relay(fds, delay_s, loss):
    """Each packet of one side goes to the other after the delay, in order, but for those that are lost."""
    queue, number, chance = [], 0, random.Random(1)
    while True:
        wait = max(queue[0][0] - time.monotonic(), 0) if queue else None
        for fd in select.select(fds, [], [], wait)[0]:
            packet = os.read(fd, 65536)
            if chance.random() >= loss:
                number += 1
                heapq.heappush(queue, (time.monotonic() + delay_s, number, fds[0] if fd == fds[1] else fds[1], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(queue)
            try:
                os.write(to, packet)
            except OSError:
                pass  # its queue is full: lost


if __name__ == "__main__":
    relay([int(sys.argv[1]), int(sys.argv[2])], float(sys.argv[3]) / 1e3, float(sys.argv[4]))
