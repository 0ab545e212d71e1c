"""What `make install` puts where, and bash completion, which asks the program."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import BINARY, ROOT, vramd

COMPLETION = ROOT / "tools" / "completion.bash"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """[(DESTDIR), [paths]]"""
    dest = tmp_path_factory.mktemp("dest")
    build = Path(BINARY).parent
    subprocess.run(["make", "-s", "install", f"BUILD={build}", f"DESTDIR={dest}", "PREFIX=/opt/v",
                    "CUDA=/nonexistent", "-o", str(build / "vramd")], cwd=ROOT, check=True, timeout=60)
    return dest, sorted(str(p.relative_to(dest)) for p in dest.rglob("*") if not p.is_dir())


def test_install_puts_program_pages_units_and_completion_in_place(tree):
    dest, files = tree
    for f in ["bin/vramd",
              "share/bash-completion/completions/vramd", "lib/systemd/system/vramd.service",
              "lib/systemd/system/vramd.socket", "share/doc/vramd/examples/vramd.conf",
              "share/doc/vramd/operations.md", "share/doc/vramd/dashboard.json",
              *(f"share/man/{page}" for page in pages())]:
        assert f"opt/v/{f}" in files, files
    unit = (dest / "opt/v/lib/systemd/system/vramd.service").read_text()
    assert "ExecStart=/opt/v/bin/vramd serve\n" in unit
    subprocess.run([dest / "opt/v/bin/vramd", "version"], check=True, timeout=60, stdout=subprocess.DEVNULL)


def commands():
    return re.findall(r"^  ([a-z]+) ", vramd("--help").stdout, re.M)


def pages():
    """The manual's pages: serve and version are told in vramd(8)."""
    yield from ["man8/vramd.8", "man5/vramd.conf.5"]
    for name in commands():
        yield f"man8/vramd-{name}.8" if name in ("serve", "version") else f"man1/vramd-{name}.1"


def test_a_page_tells_every_flag_of_its_command(tree):
    dest, _ = tree
    for name in set(commands()) - {"serve", "version"}:
        page = (dest / f"opt/v/share/man/man1/vramd-{name}.1").read_text().replace("\\-", "-")
        assert page.startswith(".Dd ") and f"usage: vramd {name}" not in page and f"vramd {name} " in page
        for flag in flags(name):
            assert flag in page, (name, flag)


def flags(name):
    """What a command's --help names, wherever it stands."""
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", vramd(name, "--help").stdout))


def complete(*words):
    script = ('source "$1"; shift; COMP_WORDS=(vramd "$@"); COMP_CWORD=$#; _vramd "$BINARY"; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    r = subprocess.run(["bash", "-c", script, "_", COMPLETION, *words], text=True, capture_output=True, timeout=60,
                       env={**os.environ, "BINARY": BINARY}, check=True)
    return r.stdout.split()


def test_completion_knows_commands_flags_and_values():
    assert {"serve", "plan", "inspect"} <= set(complete(""))
    assert complete("inspe") == ["inspect"]
    assert "--max-model-len" in complete("serve", "--max-m")
    assert "--no-prefix-caching" in complete("serve", "--no-prefix")
    assert {"f16", "bf16", "f32"} <= set(complete("serve", "--kv-cache-dtype", ""))
    assert complete("serve", "--kv-cache-dtype", "=", "bf") == ["bf16"]
    assert complete("serve", "--port", "") == []  # a number: nothing to offer
    assert complete("serve", "--no-such-flag", "--print-sam") == ["--print-sample"]


def test_completion_knows_the_types_and_cards_of_plan():
    assert "Q8_0" in {w.upper() for w in complete("plan", "--weights", "")} and complete("plan", "--weights", "b") == ["bf16"]
    cards = re.findall(r"^(\S*\d\S*) .*GiB", vramd("plan", "--list-devices").stdout, re.M)  # none where there is no such list
    assert complete("plan", "--device", "h") == [c for c in cards if c.startswith("h")]


def test_completion_knows_the_types_that_are_written():
    assert complete("quantize", "--type", "Q4_") == ["Q4_K", "Q4_1", "Q4_0"]


def test_completion_offers_every_flag_that_help_names():
    for name in set(commands()) - {"version"}:
        assert flags(name) - {"--help"} == set(complete(name, "-")), name


def test_the_package_is_built_from_what_setup_installs():
    control, setup, changelog, version = (
        (ROOT / f).read_text() for f in ["debian/control", "tools/setup.sh", "debian/changelog", "VERSION"])
    packages = re.search(r'^packages="([^"]*)"', setup, re.M)[1].split()
    libraries = {p for p in packages if p.startswith("lib") and p.endswith("-dev")} - {"libc6-dev"}
    depends = re.search(r"^Build-Depends:.*", control, re.M)[0]
    always = re.sub(r"[^,]*<pkg\.[^>]*>,", "", depends)  # not those of packages that a profile adds
    assert libraries == set(re.findall(r"\blib[\w.+-]+-dev\b", always))
    assert re.match(r"vramd \((.*)\)", changelog)[1] == version.strip()
