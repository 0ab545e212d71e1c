"""Mixed requests at 32 at once, a good part of which leave before the end, have a short deadline or a key with
limits; afterwards nothing may be held. Prints a line of counts; exit code 1 when something was wrong.

  soak.py URL N [SEED [KEY...]]     the first key without limits; more are used at random"""

import asyncio
import collections
import json
import random
import sys

import httpx

AT_ONCE = 32
WORDS = "river engine winter garden paper signal castle harbour mountain letter".split()


def request(r):
    """One random request: path, body, statuses that are right, whether to leave early."""
    text = " ".join(r.choices(WORDS, k=r.choice([1, 5, 20, 80])))
    body = {"max_tokens": r.choice([1, 4, 8, 24]), "temperature": r.choice([0, 0.8]), "stream": r.random() < 0.6,
            "ignore_eos": r.random() < 0.5}
    want, path = {200, 429, 503}, "/v1/completions"
    kind = r.random()
    if kind < 0.3:
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": text}]
    elif kind < 0.4:
        body["prompt"] = [text, text + " again"]
    elif kind < 0.5:
        body["prompt"], body["n"] = text, 2
    elif kind < 0.6:
        body["prompt"], body["top_p"], want = text, 7, {400}
    elif kind < 0.65:
        body["prompt"], want = " ".join(r.choices(WORDS, k=1500)), {400}
    elif kind < 0.7:
        body["prompt"], body["model"], want = text, "other", {404}
    elif kind < 0.8:
        body["prompt"], body["timeout"], want = text, r.choice([0.005, 0.05, 0.5]), want | {408}
    else:
        body["prompt"], body["logprobs"], body["stop"] = text, r.choice([None, 2]), r.choice([None, ["the"]])
    return path, body, want, r.random() < 0.3


async def one(http, r, counts, keys):
    path, body, want, leave = request(r)
    headers = {}
    if keys:
        key = r.choice([*keys, "vk-unknown"])
        headers["X-Api-Key"] = key
        want = {401} if key == "vk-unknown" else want | {429}
    try:
        if leave:
            await asyncio.wait_for(http.post(path, json=body, headers=headers), r.random() * 0.5)
            counts["ended"] += 1
            return
        a = await http.post(path, json=body, headers=headers)
    except (asyncio.TimeoutError, TimeoutError):
        counts["left"] += 1
        return
    except httpx.TransportError as e:
        counts[f"WRONG {type(e).__name__}"] += 1
        return
    whole = a.status_code != 200 or not body["stream"] or a.text.endswith("data: [DONE]\n\n")
    right = a.status_code in want and whole and '"server_error"' not in a.text
    counts[str(a.status_code) if right else f"WRONG {a.status_code} {json.dumps(body)[:200]} {a.text[:200]}"] += 1


async def drive(url, n, seed, keys):
    counts = collections.Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE * 2, max_keepalive_connections=AT_ONCE)
    headers = {"X-Api-Key": keys[0]} if keys else {}
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, headers=headers) as http:
        async def gated(i):
            async with gate:
                await one(http, random.Random(f"{seed} {i}"), counts, keys)
        before = held(await memory(http))
        await asyncio.gather(*(gated(i) for i in range(n)))
        for _ in range(200):
            m = await memory(http)
            if m["kv"]["free"] + m["kv"]["cached"] == m["kv"]["blocks"] and held(m) == before:
                break
            await asyncio.sleep(0.05)
        else:
            counts[f"WRONG held {held(m)}, not {before}, free {m['kv']['free']} of {m['kv']['blocks']}"] += 1
        if m["sequences"]:
            counts[f"WRONG sequences {m['sequences']}"] += 1
    return counts


async def memory(http):
    return (await http.get("/v1/memory")).json()


def held(m):
    """Ledger bytes by class; connections may come and go."""
    return {c["class"]: c["ledger_bytes"] for c in m["classes"] if c["class"] != "http"}


def run(url, n, seed=1, keys=()):
    return asyncio.run(drive(url, n, seed, keys))


if __name__ == "__main__":
    result = run(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else 1, sys.argv[4:])
    print(dict(result))
    sys.exit(any(k.startswith("WRONG") for k in result))
