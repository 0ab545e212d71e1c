"""The official JSON Schema test suite, draft 2020-12, against text/grammar/schema.c: what a grammar takes is
valid, or the schema is refused.

    make schema-suite      (or: python tests/text/schema_suite.py build/tests/text/schema_probe [-v])

The suite is in the source distribution of the package jsonschema, fetched by pip into the cache. A
valid instance is written with its keys in the order of the schema, without white space, as Python's
json writes it, and indented. All of it twice: as the standard has it, and with the API's default for
properties that a schema does not list. Texts that the masks of each grammar allow are validated by jsonschema.
Exit status 1: an invalid instance or sample is taken, or one of the bounds below does not hold."""

import collections
import json
import math
import os
import pathlib
import subprocess
import sys
import tarfile

VERSION = "4.26.0"
MOST_REFUSED = 120  # of 368 schemas
LEAST_TAKEN = 620  # valid instances
SAMPLES = 20  # of each grammar


def suite():
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = pathlib.Path(os.environ.get("VRAMD_CACHE") or pathlib.Path(home) / "vramd")
    path = cache / f"jsonschema-{VERSION}.tar.gz"
    if not path.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary",
                        "jsonschema", "-d", str(cache), f"jsonschema=={VERSION}"], check=True)
    with tarfile.open(path) as t:
        for m in sorted(t.getmembers(), key=lambda m: m.name):
            parts = pathlib.PurePath(m.name).parts
            if parts[1:4] == ("json", "tests", "draft2020-12") and len(parts) == 5:
                yield parts[-1], json.load(t.extractfile(m))


def names_in_order(schema, out):
    """Names of properties as the schema lists them, at any depth."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("properties", "const") and isinstance(value, dict):
                for name in value:
                    out.setdefault(name, len(out))
            names_in_order(value, out)
    elif isinstance(schema, list):
        for value in schema:
            names_in_order(value, out)
    return out


def reorder(value, order):
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: order.get(k, len(order)))
        return {k: reorder(value[k], order) for k in keys}
    return [reorder(v, order) for v in value] if isinstance(value, list) else value


def has_ascii_keys(value):
    if isinstance(value, dict):
        return all(k.isascii() and has_ascii_keys(v) for k, v in value.items())
    return all(has_ascii_keys(v) for v in value) if isinstance(value, list) else True


def spellings(value):
    """Compact, spaced, indented; with and without escapes, which names need not have."""
    for ascii_only in (False, True) if has_ascii_keys(value) else (False,):
        yield json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
        yield json.dumps(value, ensure_ascii=ascii_only)
        yield json.dumps(value, indent=2, ensure_ascii=ascii_only)


def has_surrogate(value):
    return any(0xD800 <= ord(c) < 0xE000 for c in json.dumps(value, ensure_ascii=False))


class Probe:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, schema, closed, texts, samples=0):
        line = {"schema": schema, "closed": closed, "texts": texts, "samples": samples}
        self.p.stdin.write(json.dumps(line) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise SystemExit(f"the probe ended ({self.p.wait()}) at {json.dumps(schema)}")
        return json.loads(line)


def sample_errors(schema, samples):
    """Samples that jsonschema finds invalid; [] where it is not installed."""
    try:
        import jsonschema
    except ImportError:
        return []
    validator = jsonschema.Draft202012Validator(schema)
    bad = []
    for text in samples:
        value = json.loads(text, parse_float=float)
        if isinstance(value, float) and math.isinf(value):
            continue
        if not validator.is_valid(value):
            bad.append(text)
    return bad


def judge(probe, name, group, closed, count, refused, verbose):
    """The failures of one schema and its instances."""
    schema = group["schema"]
    order = names_in_order(schema, {})
    failures = []
    where = f"{'api, ' if closed else ''}{name}: {group['description']}"
    answer = probe.ask(schema, closed, [], SAMPLES)
    count["schemas"] += 1
    if "refused" in answer:
        count["refused"] += 1
        refused[name] += 1
        if verbose:
            print(f"refused  {where}: {answer['refused']}")
        return failures
    if "differs" in answer:
        failures.append(f"{where}: grammar and matcher differ at {answer['differs']!r}")
    count["samples"] += len(answer["samples"])
    for text in sample_errors(schema, answer["samples"]):
        failures.append(f"{where}: the sample {text!r} is invalid")
    for test in group["tests"]:
        if has_surrogate(test["data"]):
            continue
        texts = list(spellings(reorder(test["data"], order)))
        if not test["valid"]:
            texts += list(spellings(test["data"]))
        answer = probe.ask(schema, closed, texts)
        takes = answer.get("takes")
        what = f"{where}: {test['description']}"
        if takes is None or "differs" in answer:
            failures.append(f"{what}: {answer}")
        elif test["valid"]:
            count["taken" if all(takes) else "not taken"] += 1
            if verbose and not all(takes):
                print(f"not taken  {what}: {texts[takes.index(False)]!r}")
        else:
            count["invalid taken" if any(takes) else "invalid rejected"] += 1
            if any(takes):
                failures.append(f"{what}: takes {texts[takes.index(True)]!r}")
    return failures


def main():
    probe = Probe(sys.argv[1])
    failed = False
    for closed in (False, True):
        count = collections.Counter()
        refused = collections.Counter()
        failures = []
        for name, groups in suite():
            for group in groups:
                failures += judge(probe, name, group, closed, count, refused, "-v" in sys.argv[2:])
        for line in failures:
            print("FAILED", line)
        print("as the API has it:" if closed else "as the standard has it:", dict(count))
        print("refused:", dict(refused))
        failed |= bool(failures) or count["refused"] > MOST_REFUSED or count["taken"] < LEAST_TAKEN
    sys.exit(failed)


main()
