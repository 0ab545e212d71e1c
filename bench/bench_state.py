#!/usr/bin/env python3
"""Recurrent states at work: random weights in the shape of Qwen3.5's layers, three delta nets of four.

The second turn of a chat of 32,768 tokens, seen from outside: what it finds, by its usage and by the server's metrics. Then the
engine alone: decoding against what reading its bytes takes, weights, KV cache and states; prefill against a llama of as many
weights; copies of states against memcpy. Ends with 1 where a bar is missed. Writes 0.6 GB into --dir, and deletes it."""

import argparse

from bench_common import *

BARS = {"of_read_rate": 0.85, "prefill_of_dense": 0.7, "copy_of_memcpy": 0.8}
BLOCK, ANSWER, CHECKPOINTS = 16, 64, 4


def make(folder, shape, a):
    path = Path(folder) / f"{shape}.gguf"
    subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", shape, "--type", a.type, "--layers",
                    str(a.layers), "--vocab", "32000"], check=True)
    return path


# ---- the chat


def post(server, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as r:
        return json.loads(r.read())


def metrics(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    return {name: float(v) for name, v in re.findall(r"^(vramd_\w+)(?:\{[^,}]*\})? (\S+)$", text, re.M)}


def words(n, seed):
    """Each is two tokens: a space, and two letters."""
    return "".join(f" {chr(97 + (seed + 7 * i) % 25)}{chr(97 + i // 25 % 26)}" for i in range(n))


def message_of(server, n_tokens):
    """A first message that makes a prompt of so many tokens."""
    def count(text):
        return post(server, "/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": text}]})["input_tokens"]
    n = (n_tokens - count("")) // 2
    text = words(n, 1)
    text += "." * (n_tokens - count(text))
    assert count(text) == n_tokens, (count(text), n_tokens)
    return text


def turn(server, messages, bias):
    """Every token of the answer is the same one, so that its text gives the same tokens in the next prompt."""
    before, start = metrics(server), time.monotonic()
    doc = post(server, "/v1/chat/completions", {"messages": messages, "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True,
                                                "logit_bias": bias})
    seconds, after = time.monotonic() - start, metrics(server)
    gained = {k: after[k] - before[k] for k in after if k in before}
    usage = doc["usage"]
    return doc["choices"][0]["message"]["content"], {
        "prompt": usage["prompt_tokens"], "cached": usage["prompt_tokens_details"]["cached_tokens"], "answer": usage["completion_tokens"],
        "metrics_queries": gained["vramd_prefix_cache_queries_total"], "metrics_hits": gained["vramd_prefix_cache_hits_total"],
        "state_misses": gained["vramd_prefix_cache_state_misses_total"],
        "first_token_s": round(gained["vramd_time_to_first_token_seconds_sum"], 4), "seconds": round(seconds, 4)}


def chat(model, a):
    server = vramd_server("--max-model-len", a.chat_tokens + 512, "--max-num-seqs", "1", "--state-checkpoints", CHECKPOINTS,
                          "--max-num-batched-tokens", "512", "--block-size", BLOCK, model=model)
    try:
        (token,) = post(server, "/tokenize", {"prompt": "ab", "add_special_tokens": False})["tokens"]
        messages = [{"role": "user", "content": message_of(server, a.chat_tokens)}]
        answer, first = turn(server, messages, {str(token): 100})
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": words(20, 3)}]
        _, second = turn(server, messages, {str(token): 100})
    finally:
        server.stop()
    # The last token of an answer is drawn and not computed.
    new = second["prompt"] - first["prompt"] - first["answer"] + 1
    return {"case": "chat", "first": first, "second": second, "new_tokens": new,
            "computed": second["prompt"] - second["cached"], "at_most": new + BLOCK}


# ---- the engine


def engine(path, *options):
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", path, "--threads", str(THREADS), "--depths", "", *options, "--json", f.name],
                       check=True)
        return json.load(f)["rows"]


def prefill(models, a):
    """Both in turn; the median of the rounds' ratios."""
    rounds = []
    for _ in range(a.rounds):
        rounds.append([engine(m, "--batches", "", "--prefill", a.prefill, "--reps", "1")[0]["tokens_per_s"] for m in models])
    return {"case": "prefill", "tokens": int(a.prefill), "tokens_per_s": median([r[0] for r in rounds]),
            "dense_tokens_per_s": median([r[1] for r in rounds]), "of_dense": round(median([r[0] / r[1] for r in rounds]), 4),
            "rounds": rounds}


def missed(rows):
    for r in rows:
        if r["case"] == "chat" and (r["computed"] > r["at_most"] or r["second"]["metrics_hits"] != r["second"]["cached"]):
            yield f"chat: turn 2 computes {r['computed']} tokens, {r['at_most']} were to be the most"
        if r["case"] == "decode" and r["batch"] == 1 and r["of_read_rate"] < BARS["of_read_rate"]:
            yield f"decode: {r['of_read_rate']:.0%} of the read rate"
        if r["case"] == "prefill" and r["of_dense"] < BARS["prefill_of_dense"]:
            yield f"prefill: {r['of_dense']:.2f} of the dense model's"
        if r["case"] == "states" and r["copy_gb_s"] < BARS["copy_of_memcpy"] * r["memcpy_gb_s"]:
            yield f"copies of states: {r['copy_gb_s']} GB/s, memcpy {r['memcpy_gb_s']}"


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--layers", type=int, default=8)
    ap.add_argument("--type", default="Q4_K")
    ap.add_argument("--chat-tokens", type=int, default=32768)
    ap.add_argument("--prefill", default="2048")
    ap.add_argument("--batches", default="1,8")
    ap.add_argument("--tokens", type=int, default=64)
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--only", help="chat, decode or prefill", choices=["chat", "decode", "prefill"])
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="for the models")
    ap.add_argument("--no-save", action="store_true")
    a = ap.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=a.dir) as folder:
        model = make(folder, "qwen35", a)
        if a.only in (None, "decode"):
            rows += engine(model, "--ops", "1", "--prefill", "", "--batches", a.batches, "--tokens", str(a.tokens), "--reps", str(a.reps),
                           "--states", "16")
        if a.only in (None, "prefill"):
            rows.append(prefill([model, make(folder, "as_qwen35", a)], a))
        if a.only in (None, "chat"):
            rows.append(chat(model, a))
    for r in rows:
        if r["case"] in ("chat", "prefill"):
            print(json.dumps(r))
    if not a.no_save and not a.only:
        save("state", rows, model_file=f"qwen35, {a.layers} layers, {a.type}", layers=a.layers, type=a.type, bars=BARS,
             note="random weights in the shape of Qwen3.5's layers; of_read_rate: weights, KV cache and states that a step reads, over its "
                  "time and the rate of plain reading; of_dense: a llama of as many weights; computed: tokens of the second prompt that "
                  "were not found")
    wrong = list(missed(rows))
    for text in wrong:
        print("missed:", text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
