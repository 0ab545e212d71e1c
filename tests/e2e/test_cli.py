"""The daemon around its requests: while it loads, where it listens, and what its flags print."""

import json
import re
import socket
import subprocess
import time

import httpx
import pytest

from harness import BINARY, MODEL, ROOT, Daemon, refused, vramd
from tiny_model import write


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_while_loading_it_is_alive_but_not_ready():
    """/livez is 200 from the first answer on; /ready, /health and requests are 503 with Retry-After until READY."""
    for _ in range(5):  # on a fast machine a load may be over before the first look
        port = free_port()
        d = Daemon("--port", str(port), "--max-model-len", "1024", wait=False)
        early, codes = None, []
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    ready = http.get("/ready")
                except httpx.TransportError:
                    assert d.process.poll() is None, d.text()
                    continue
                codes.append(ready.status_code)
                if ready.status_code == 200:
                    break
                assert http.get("/livez").status_code == 200
                health = http.get("/health")
                asked = http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
                if asked.status_code != 200:
                    early = (ready, asked) if health.status_code == 200 else (ready, asked, health)
        d.wait_ready()
        d.stop()
        assert codes[-1] == 200 and set(codes) <= {200, 503}
        if early and len(early) == 3:
            break
    assert early and len(early) == 3, "never seen while loading"
    for r in early:
        assert r.status_code == 503 and int(r.headers["retry-after"]) >= 1
    for r in early[1:]:
        e = r.json()["error"]
        assert (e["type"], e["code"]) == ("unavailable_error", 503)
    assert e["message"] == "Loading model"


@pytest.mark.parametrize("limit, code, words", [
    ("-s 16", 4, ["the limit of the stack is 16384 bytes", "try: ulimit -s 1024"]),
    ("-n 70", 2, ["this process may open 70 files", "lower max_connections to 6 or raise"]),
    ("-n 40", 2, ["this process may open 40 files", "try: raise the limit (ulimit -n, LimitNOFILE=) to 1088"]),
])
def test_a_limit_that_is_too_low_is_named_with_what_would_do(limit, code, words):
    r = subprocess.run(["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", BINARY, "serve", "--check", "--model", MODEL],
                       capture_output=True, text=True, timeout=60)
    assert r.returncode == code and all(w in r.stderr for w in words), (r.returncode, r.stderr)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = vramd("serve", "--model", MODEL, "--port", str(port), "--max-model-len", "256")
    assert r.returncode != 0 and str(port) in r.stderr and "READY" not in r.stderr, r.stderr


def test_a_unix_socket_serves_and_is_removed(tmp_path):
    path = tmp_path / "vramd.sock"
    d = Daemon("--host", f"unix:{path}", "--max-model-len", "256", wait=False)
    d.wait_log("READY: curl --unix-socket")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://vramd", timeout=60) as http:
        r = http.post("/v1/completions", json={"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0})
        assert r.status_code == 200 and "Paris" in r.json()["choices"][0]["text"]
    d.stop()
    assert not path.exists()


def test_help_sample_and_manual_name_every_option():
    table = (ROOT / "conf" / "table.h").read_text()
    names = re.findall(r'^    X\("\w+", \w+, (\w+),', table, re.M)
    assert len(names) > 20
    text = {k: vramd("serve", "--" + k).stdout for k in ("help", "print-sample", "print-man")}
    for name in names:
        flag = "--" + name.replace("_", "-")
        assert flag in text["help"], flag
        assert re.search(rf"^\s*[#;]?\s*{name} =", text["print-sample"], re.M), name
        assert f".Fl {flag[1:]} " in text["print-man"].replace("\\-", "-") + " ", flag


@pytest.mark.parametrize("command", ["serve", "generate", "eval", "plan", "inspect", "tokenize"])
def test_every_command_names_what_it_does_not_know(command):
    r = vramd(command, "--no-such-thing", MODEL)
    assert r.returncode == 2 and "no-such-thing" in r.stderr and not r.stdout
    assert vramd(command, "--help").returncode == 0


def test_check_refuses_what_serve_refuses(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
                                  "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                                  "vocab_size": 100, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}))
    strange = tmp_path / "strange.gguf"  # a vocabulary that nobody knows
    write(str(strange), "Q8_0")
    strange.write_bytes(strange.read_bytes().replace(b"\x05\0\0\0\0\0\0\0gpt-2", b"\x05\0\0\0\0\0\0\0gpt-9"))
    small = ["--model", MODEL, "--max-model-len", "512"]
    for code, said, options in (
            (7, "does not hold class", [*small, "--memory", "90MiB"]), (3, "/nonexistent.gguf", ["--model", "/nonexistent.gguf"]),
            (2, "not a GGUF file", ["--model", str(config)]), (6, "gpt-9", ["--model", str(strange)]),
            (2, "no origin", [*small, "--cors-origins", "chat.example"]),
            (2, "cannot resolve host", [*small, "--host", "not.a.host.invalid"]),
            (2, "the path of a Unix socket", [*small, "--host", "unix:/" + "x" * 120])):
        r = refused(*options)
        assert r.returncode == code and said in r.stderr, r


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_have_brackets_and_the_line_at_ready_has_one_pair(host):
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "2", "--host", host, wait=False)
    url = d.wait_log(r"READY: curl (\S+)/v1/")[1]
    assert httpx.get(url + "/health").status_code == 200
    d.stop()


def test_check_prints_a_file_that_gives_the_same_options(tmp_path):
    first = vramd("serve", "--check", "--model", MODEL, "--max-num-seqs", "9", "--memory", "400MiB", "--max-model-len", "333")
    f = tmp_path / "again.conf"
    f.write_text(first.stdout)
    again = vramd("serve", "--check", "--config", str(f))
    assert first.returncode == again.returncode == 0 and again.stdout == first.stdout


def test_generate_writes_the_text_alone_and_is_greedy_at_zero(daemon):
    for prompt, n in (("The capital of France is", 20), ("def add(a, b):\n", 24)):
        r = vramd("generate", "--raw", "--model", MODEL, "--max-tokens", str(n), "--temperature", "0", prompt)
        assert r.returncode == 0 and r.stdout == daemon.say(prompt, max_tokens=n) + "\n"


def test_tokenize_and_detokenize_go_round(daemon):
    for text in ("", " ", "Hello", "a  b\n\n\tc", "naïve café 東京 🎉", "<|im_start|>user\nx<|im_end|>", "x" * 5000):
        ids = json.loads(vramd("tokenize", "--json", MODEL, input=text).stdout)
        assert ids == daemon.tokens(text)
        back = daemon.http.post("/detokenize", json={"tokens": ids})
        assert back.status_code == 200 and back.json()["prompt"] == text


def test_a_closed_output_ends_generate():
    p = subprocess.Popen([BINARY, "generate", "--raw", "--model", MODEL, "--max-tokens", "100000", "--max-model-len", "8192",
                          "--temperature", "1", "--seed", "1", "Once"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        p.stdout.read(1)
        p.stdout.close()
        p.wait(60)
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
            pytest.fail("generate goes on writing to nobody")
        p.stderr.close()
