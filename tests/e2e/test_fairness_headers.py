"""Who a request is for the scheduler, where a gateway names it: headers of listed proxies count, those of others do not."""

import concurrent.futures
import time

import httpx
import pytest

from harness import MODEL, Daemon, vramd

NAMES = ("x-gateway-inference-fairness-id", "X-LLM-D-Inference-Fairness-Id")
OPTIONS = ["--max-num-seqs", "1", "--max-model-len", "8192", "--no-prefix-caching", "--threads", "1"]
BODY = {"prompt": [7] * 8, "max_tokens": 12, "temperature": 0, "ignore_eos": True}


def order(http, name):
    """Four requests of one client, then one of another: their places in the order of ending."""
    def send(who):
        r = http.post("/v1/completions", json={**BODY, "max_tokens": 12}, headers={name: who})
        assert r.status_code == 200, r.text
        return time.monotonic(), who
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        jobs = []
        for who in ["flood"] * 4 + ["other"]:
            jobs.append(pool.submit(send, who))
            waits(http, len(jobs))
        return [who for _, who in sorted(j.result() for j in jobs)]


def waits(http, n):
    """Until the n-th has arrived, or some have ended."""
    for _ in range(1000):
        m = http.get("/v1/memory").json()
        if len(m["sequences"]) >= n or n > 1 and not m["sequences"]:
            return
        time.sleep(0.005)


def tenant(http, name, who):
    """As /v1/memory has it while the request runs: it would run for many seconds."""
    with http.stream("POST", "/v1/completions", json={**BODY, "max_tokens": 8000, "stream": True}, headers={name: who}) as r:
        assert r.status_code == 200
        lines = r.iter_lines()  # kept: the connection is closed with it
        next(lines)
        waits(http, 1)
        (s,) = http.get("/v1/memory").json()["sequences"]
        return s["tenant"]


def unix_daemon(path, *options):
    d = Daemon("--host", f"unix:{path}", *OPTIONS, *options, wait=False)
    d.wait_log("READY: curl --unix-socket")
    return d, httpx.Client(base_url="http://here", transport=httpx.HTTPTransport(uds=str(path)), timeout=120)


def test_headers_of_a_listed_proxy_name_tenants():
    d = Daemon(*OPTIONS, "--trusted-proxies", "10.0.0.0/8, 127.0.0.0/8")
    try:
        ids = {(name, who): tenant(d.http, name, who) for name in NAMES for who in ("a", "b")}
        assert all(ids.values()) and len(set(ids.values())) == 2 and ids[NAMES[0], "a"] == ids[NAMES[1], "a"]
        assert tenant(d.http, "x-other", "a") is None and tenant(d.http, NAMES[0], "") is None
    finally:
        d.stop()


@pytest.mark.parametrize("options", [[], ["--trusted-proxies", "10.0.0.0/8, ::1, unix"]])
def test_headers_of_others_do_not(options):
    d = Daemon(*OPTIONS, *options)
    try:
        assert [tenant(d.http, name, "a") for name in NAMES] == [None, None]
    finally:
        d.stop()


@pytest.mark.parametrize("listed,counts", [("unix", True), ("0.0.0.0/0, ::/0", False)])
def test_the_unix_socket_is_listed_by_its_name(tmp_path, listed, counts):
    d, http = unix_daemon(tmp_path / "socket", "--trusted-proxies", listed)
    try:
        assert (tenant(http, NAMES[0], "a") is not None) == counts
    finally:
        http.close()
        d.stop()


@pytest.mark.parametrize("listed,places", [("127.0.0.1", (1, 2)), ("10.0.0.1", (4,))])
def test_a_flood_of_one_delays_no_other_of_the_same_gateway(listed, places):
    d = Daemon(*OPTIONS, "--trusted-proxies", listed)
    try:
        assert order(d.http, NAMES[0]).index("other") in places
    finally:
        d.stop()


def test_what_is_no_network_is_refused():
    r = vramd("serve", "--check", "--model", MODEL, *OPTIONS, "--trusted-proxies", "127.0.0.1, gateway")
    assert r.returncode == 2 and 'trusted_proxies: "gateway" is no address or network' in r.stderr
