"""Prefixes on disk (kv_disk): they survive a restart and a kill, and change no bit of an answer."""

import random
import shutil
import signal
import threading
import time

import pytest

import tiny_model
from harness import MODEL, Daemon, vramd
from test_load import counter

OPTIONS = ["--max-model-len", "2048", "--max-num-seqs", "4", "--kv-cache-tokens", "4096"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("kv_disk") / "tiny.gguf"
    tiny_model.write(str(path), "F16", context=2048)
    return str(path)


def words(seed, n):
    r = random.Random(seed)
    return [r.randrange(300) for _ in range(n)]


def serve(model, disk=None, *more):
    return Daemon("--model", model, *OPTIONS, *(["--kv-disk", str(disk)] if disk else []), *more)


def ask(d, prompt, **more):
    r = d.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 6, "temperature": 0, "logprobs": 3, "ignore_eos": True, **more})
    assert r.status_code == 200, r.text
    a = r.json()
    c = a["choices"][0]
    return (c["text"], c["logprobs"]["token_logprobs"], c["logprobs"]["top_logprobs"]), a["usage"]["prompt_tokens_details"]["cached_tokens"]


def wait_stored(d, n):
    for _ in range(200):
        if d.memory()["kv"]["disk"]["chunks"] >= n:
            return
        time.sleep(0.05)
    raise AssertionError(d.memory()["kv"]["disk"])


def files(disk):
    return sorted(disk.glob("*/*/*.kv"))


@pytest.fixture(scope="module")
def expected(tiny):
    """What is said without a tier."""
    d = serve(tiny)
    answers = {seed: ask(d, words(seed, 1000))[0] for seed in range(6)}
    d.stop()
    return answers


def test_a_restart_keeps_what_was_found_and_every_bit(tiny, tmp_path, expected):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    assert ask(d, words(0, 1000)) == (expected[0], 0)
    wait_stored(d, 7)
    kv = d.memory()["kv"]["disk"]
    assert kv["on"] and kv["stores"] == 7 and kv["bytes"] == sum(f.stat().st_size for f in files(disk)) and kv["chunk_tokens"] == 128
    assert "kv_disk: " in d.http.get("/v1/memory", headers={"Accept": "text/plain"}).text
    d.stop()
    assert (disk / "key").stat().st_mode & 0o777 == 0o600 and disk.stat().st_mode & 0o777 == 0o700
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in files(disk))
    d = serve(tiny, disk)
    assert ask(d, words(0, 1000)) == (expected[0], 896)
    assert ask(d, words(0, 1000)) == (expected[0], 992)  # from memory now
    assert counter(d, "vramd_kv_tier_hits_total") == 896 and counter(d, "vramd_kv_tier_loads_total") == 7
    classes = {c["class"]: c for c in d.memory()["classes"]}
    assert all(c["ledger_bytes"] <= c["plan_bytes"] for c in classes.values())
    # A longer prompt goes on behind it.
    said, cached = ask(d, words(0, 1000) + words(9, 400))
    assert cached == 992
    d.stop()


def test_a_prompt_that_ends_while_draining_is_stored(tiny, tmp_path, expected):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    assert ask(d, words(1, 1000))[0] == expected[1]
    d.stop()
    assert len(files(disk)) == 7


def test_other_weights_types_and_block_sizes_find_nothing(tiny, tmp_path, expected):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    ask(d, words(1, 1000))
    d.stop()
    for more in (["--kv-cache-dtype", "f32"], ["--block-size", "32"], ["--activation-dtype", "f32"]):
        d = serve(tiny, disk, *more)
        assert ask(d, words(1, 1000))[1] == 0
        d.stop()
    other = tmp_path / "other.gguf"
    shutil.copy(tiny, other)
    with open(other, "r+b") as f:  # one weight
        f.seek(-1000, 2)
        byte = f.read(1)
        f.seek(-1000, 2)
        f.write(bytes([byte[0] ^ 1]))
    d = serve(tiny, disk)
    assert ask(d, words(1, 1000)) == (expected[1], 0)  # the others have removed its files
    d.stop()
    d = serve(str(other), disk)
    assert ask(d, words(1, 1000))[1] == 0
    assert "files of another model or version removed" in d.stop()


def test_damaged_files_are_misses(tiny, tmp_path, expected):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    ask(d, words(2, 1000))
    wait_stored(d, 7)
    d.stop()
    r = random.Random(1)
    for f in files(disk):
        b = bytearray(f.read_bytes())
        b[r.randrange(len(b))] ^= 1 << r.randrange(8)
        f.write_bytes(b)
    d = serve(tiny, disk)
    said, cached = ask(d, words(2, 1000))
    assert said == expected[2] and cached == 0
    assert ask(d, words(2, 1000))[0] == expected[2]
    d.stop()


def test_a_directory_that_fails_turns_the_tier_off_and_serving_goes_on(tiny, tmp_path, expected):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    shutil.rmtree(disk)
    assert ask(d, words(3, 1000))[0] == expected[3]
    d.wait_log("kv_disk: writing failed, nothing is read or written for 60 s")
    assert ask(d, words(4, 1000))[0] == expected[4]
    kv = d.memory()["kv"]["disk"]
    assert not kv["on"] and kv["store_errors"] == 1 and kv["chunks"] == 0
    assert counter(d, "vramd_kv_tier_on") == 0
    assert d.stop().count("error kv_disk") == 1


def test_a_salt_of_its_own_stays_off_the_disk_and_the_budget_holds(tiny, tmp_path):
    disk = tmp_path / "disk"
    d = serve(tiny, disk, "--kv-disk-bytes", "400KiB")
    ask(d, words(1, 1000), cache_salt="mine")
    time.sleep(0.3)
    assert files(disk) == []
    for seed in range(4):
        ask(d, words(seed, 1000))
        wait_stored(d, 1)
    d.stop()
    total = sum(f.stat().st_size for f in files(disk))
    assert 0 < total <= 400 << 10
    d = serve(tiny, disk, "--kv-disk-bytes", "100KiB")
    assert sum(f.stat().st_size for f in files(disk)) <= 100 << 10
    d.stop()


def test_two_daemons_do_not_share_a_directory(tiny, tmp_path):
    disk = tmp_path / "disk"
    d = serve(tiny, disk)
    second = vramd("serve", "--model", tiny, "--port", "0", *OPTIONS, "--kv-disk", str(disk))
    assert second.returncode != 0 and "another process uses this directory" in second.stderr
    d.stop()


def test_what_excludes_it_is_refused(tiny, tmp_path):
    disk = str(tmp_path / "disk")
    for more, text in ((["--prefix-caching=false"], "kv_disk needs prefix_caching"), (["--kv-disk-bytes", "8KiB"], "kv_disk_bytes is less")):
        r = vramd("serve", "--check", "--model", tiny, *OPTIONS, "--kv-disk", disk, *more)
        assert r.returncode != 0 and text in r.stderr, r.stderr


def test_killed_under_load_it_comes_back_with_right_answers(tiny, tmp_path, expected):
    """Four clients, kill -9 at some moment, again and again."""
    disk = tmp_path / "disk"
    r, found = random.Random(7), 0
    for round in range(6):
        d = serve(tiny, disk, "--kv-disk-bytes", "2MiB")
        wrong, hits = [], []

        def client(seed):
            while True:
                try:
                    said, cached = ask(d, words(seed, 1000))
                except Exception:
                    return  # killed
                if said != expected[seed]:
                    wrong.append(seed)
                hits.append(cached)
                if wrong or round == 5 and len(hits) > 12:
                    return
        clients = [threading.Thread(target=client, args=(seed,)) for seed in r.sample(range(6), 4)]
        for c in clients:
            c.start()
        if round < 5:
            for _ in range(2000):  # something is stored: a slow machine may take a while
                if files(disk):
                    break
                time.sleep(0.01)
            time.sleep(r.uniform(0, 0.8))
            d.process.send_signal(signal.SIGKILL)
            d.process.wait()
        for c in clients:
            c.join()
        assert not wrong
        if round == 5:
            found = counter(d, "vramd_kv_tier_hits_total")
            assert d.memory()["kv"]["disk"]["bytes"] <= 2 << 20  # a chunk may go while it is to be read: then it is computed
            d.stop()
    assert found > 0


def test_the_real_model_says_the_same(tmp_path):
    disk, prompt = tmp_path / "disk", "The old harbour of the town was full of ships that had come from every part of the sea. " * 32
    d = serve(MODEL, disk)
    first = ask(d, prompt)
    assert first[1] == 0
    d.stop()
    d = serve(MODEL, disk)
    again = ask(d, prompt)
    assert again[0] == first[0] and again[1] >= 512 and again[1] % 128 == 0
    d.stop()
