"""DELETE /v1/cache: prefixes are forgotten in memory and on disk, and requests that run do not notice."""

import threading

from harness import Daemon
from test_keys import Keyed, make
from test_kv_disk import ask, files, serve, tiny, wait_stored, words  # noqa: F401

TEXT = "The old harbour of the town was full of ships that had come from every part of the sea. " * 4


def cached(d, **body):
    r = d.http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 2, "temperature": 0, **body})
    assert r.status_code == 200, r.text
    return r.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


def forget(d, query="", **more):
    r = d.http.delete("/v1/cache" + query, **more)
    assert r.status_code == 200, r.text
    return r.json()


def test_blocks_and_files_go_and_do_not_come_back(tiny, tmp_path):  # noqa: F811
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    first = ask(d, words(0, 1000))[0]
    wait_stored(d, 7)
    d.wait_free()
    kv = d.memory()["kv"]
    size = sum(f.stat().st_size for f in files(disk))
    gone = forget(d)
    assert gone["blocks"] == kv["cached"] > 60 and gone["bytes"] == gone["blocks"] * kv["groups"][0]["block_bytes"]
    assert gone["files"] == 7 and gone["file_bytes"] == size and files(disk) == []
    kv = d.memory()["kv"]
    assert kv["cached"] == 0 and kv["free"] == kv["blocks"] and kv["disk"]["chunks"] == kv["disk"]["bytes"] == 0 and kv["disk"]["on"]
    assert forget(d) == {"blocks": 0, "bytes": 0, "files": 0, "file_bytes": 0}
    # Computed again, with the same bits, and stored again.
    assert ask(d, words(0, 1000)) == (first, 0)
    wait_stored(d, 7)
    assert ask(d, words(0, 1000)) == (first, 992) and forget(d)["files"] == 7
    d.stop()
    assert files(disk) == []
    d = serve(tiny, disk)
    assert ask(d, words(0, 1000)) == (first, 0)
    d.stop()


def test_while_files_are_written_and_read(tiny, tmp_path):  # noqa: F811
    d = serve(tiny, tmp_path / "disk")
    said = {seed: ask(d, words(seed, 1000))[0] for seed in range(4)}
    wrong = []

    def client(seed):
        for _ in range(8):
            if ask(d, words(seed, 1000))[0] != said[seed]:
                wrong.append(seed)
    threads = [threading.Thread(target=client, args=(seed,)) for seed in said]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        forget(d)
    for t in threads:
        t.join()
    assert not wrong
    forget(d)
    assert files(tmp_path / "disk") == [] and d.memory()["kv"]["cached"] == 0
    d.stop()


def test_a_stream_that_runs_goes_on_with_the_same_bits():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "4")
    body = {"prompt": TEXT, "max_tokens": 60, "temperature": 0, "ignore_eos": True, "logprobs": 2}
    expected = d.http.post("/v1/completions", json=body).json()["choices"][0]
    got = []
    t = threading.Thread(target=lambda: got.append(d.http.post("/v1/completions", json=body).json()["choices"][0]))
    t.start()
    n = 0
    while t.is_alive():
        n += forget(d)["blocks"]
    t.join()
    assert n > 0 and got[0]["text"] == expected["text"] and got[0]["logprobs"] == expected["logprobs"]
    assert cached(d) == 0 and cached(d) > 0
    d.stop()


def test_one_salt_or_one_tenant():
    d = Daemon("--max-model-len", "1024", "--max-num-seqs", "4")
    for salt in ({}, {"cache_salt": "a"}, {"cache_salt": "b c"}):
        assert cached(d, **salt) == 0 and cached(d, **salt) > 0
    assert forget(d, "?salt=b%20c")["blocks"] > 0
    assert cached(d, cache_salt="a") > 0 and cached(d) > 0 and cached(d, cache_salt="b c") == 0
    assert forget(d, "?salt=")["blocks"] > 0
    assert cached(d, cache_salt="a") > 0 and cached(d) == 0
    assert d.http.delete("/v1/cache", params={"tenant": "a"}).status_code == 400
    assert d.http.delete("/v1/cache", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    d.stop()


def test_with_keys_an_admin_may(tmp_path):
    (one, line_one), (boss, line_boss) = make("one"), make("boss", "admin")
    d = Keyed(tmp_path / "keys", line_one, line_boss).d
    one, boss = ({"Authorization": "Bearer " + key} for key in (one, boss))

    def found(who):
        return d.http.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 1}, headers=who).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert found(one) == found(boss) == 0 and found(one) > 0
    assert d.http.delete("/v1/cache").status_code == 401
    assert d.http.delete("/v1/cache", headers=one).status_code == 403
    assert d.http.delete("/v1/cache?salt=x", headers=boss).status_code == 400
    assert forget(d, "?tenant=one", headers=boss)["blocks"] > 0
    assert found(one) == 0 and found(boss) > 0
    assert forget(d, headers=boss)["blocks"] > 0 and found(boss) == 0
    d.stop()
