"""The Debian package, built from the objects at hand and unpacked: what it holds, and that it works from there. Installing,
serving as the unit does and purging are tools/chroot-test.sh's (make deb-test)."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import BINARY, MODEL, OPTIONS, ROOT, SANITIZED, Daemon

pytestmark = [
    pytest.mark.skipif(not shutil.which("dh"), reason="debhelper is not installed"),
    pytest.mark.skipif(SANITIZED or Path(BINARY) != ROOT / "build/vramd", reason="the package is made of build/"),
]
DOC = "/usr/share/doc/vramd/"


def run(*argv, **more):
    r = subprocess.run(argv, text=True, capture_output=True, timeout=300, **more)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    return r.stdout


@pytest.fixture(scope="module")
def built():
    """The .deb and the .changes beside it."""
    paths = [Path(ROOT, p) for p in run(ROOT / "tools/deb.sh", "--reuse").split()]
    return next(p for p in paths if p.name.startswith("vramd_") and p.suffix == ".deb"), \
        next(p for p in paths if p.suffix == ".changes")


@pytest.fixture(scope="module")
def tree(built, tmp_path_factory):
    to = tmp_path_factory.mktemp("package")
    run("dpkg-deb", "-x", built[0], to)
    return to


@pytest.mark.skipif(not shutil.which("lintian"), reason="lintian is not installed")
def test_lintian_finds_nothing(built):
    assert run("lintian", "--allow-root", "--info", "--pedantic", "--suppress-tags", "alien-tag", "--fail-on", "error,warning,info,pedantic",
               built[1]) == ""


def test_the_program_runs_from_the_package_with_its_own_configuration(tree):
    program = tree / "usr/bin/vramd"
    assert "vramd" in run(program, "version")
    said = run(program, "serve", "--check", "--config", tree / "etc/vramd/vramd.conf", "--model", MODEL)
    assert "# fits: " in said
    assert run(program, "serve", "--print-sample") == (tree / "etc/vramd/vramd.conf").read_text()
    answer = run(program, "generate", "--model", MODEL, "--max-tokens", "8", "What is the capital of France?")
    assert "Paris" in answer


def test_the_configuration_is_the_administrators_and_the_units_start_what_is_there(built, tree):
    control = tree / "control"
    run("dpkg-deb", "-e", built[0], control)
    assert (control / "conffiles").read_text().split() == ["/etc/vramd/vramd.conf"]
    assert "vramd.service" in (control / "postinst").read_text() and "/etc/vramd" in (control / "postrm").read_text()
    units = {p.name: p.read_text() for p in tree.glob("**/lib/systemd/system/vramd.*")}
    assert set(units) == {"vramd.service", "vramd.socket"}
    program, command = re.search(r"^ExecStart=/(\S+) (\w+)", units["vramd.service"], re.M).groups()
    assert (tree / program).exists() and command == "serve"
    listed = re.search(r"^Depends: (.*)$", run("dpkg-deb", "-I", built[0]).replace("\n ", "\n"), re.M)[1]
    # Debian 13 has renamed some, for the width of time_t.
    for library in ["libcurl3(t64)?-gnutls", "libgnutls30(t64)?", "libmicrohttpd12(t64)?", "libuv1(t64)?", "libjansson4", "libpcre2-8-0", r"libutf8proc\d",
                    "libinih1"]:
        assert re.search(rf"\b{library}\b", listed), library


def test_the_documentation_is_where_the_program_looks_for_it(tree):
    page = tree / "usr/share/vramd/docs/index.html"
    assert "Documentation" in page.read_text() and (tree / DOC[1:] / "html/web.html").exists()
    d = Daemon(*OPTIONS, binary=tree / "usr/bin/vramd")
    try:
        assert d.http.get("/docs/").text == page.read_text()
    finally:
        d.stop()


def test_every_file_that_the_documents_name_is_in_the_package(tree):
    for page in [*(tree / DOC[1:]).glob("*.md"), *tree.glob("**/man/man*/*.gz")]:
        text = gzip.decompress(page.read_bytes()).decode() if page.suffix == ".gz" else page.read_text()
        for name in re.findall(rf"{DOC}[\w./-]*\w", text):
            assert (tree / name[1:]).exists(), f"{name}: named in {page.name}"
        for name in re.findall(r"\]\((\w+\.md)\)", text) if page.name == "operations.md" else []:
            assert (tree / DOC[1:] / name).exists(), f"{name}: linked in {page.name}"


def test_a_manual_page_for_every_command_and_completion(tree):
    program, man = tree / "usr/bin/vramd", tree / "usr/share/man"
    commands = re.findall(r"^  ([a-z]+) ", run(program, "--help"), re.M)
    assert {"serve", "bench", "key"} <= set(commands)
    for name in commands:
        (page,) = man.glob(f"man?/vramd-{name}.?.gz")
        assert gzip.decompress(page.read_bytes()).startswith(b".Dd ")  # a link ends at a page
    script = ('source "$1"; shift; COMP_WORDS=(vramd "$@"); COMP_CWORD=$#; _vramd "$PROGRAM"; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    completion = tree / "usr/share/bash-completion/completions/vramd"

    def complete(*words):
        return run("bash", "-c", script, "_", completion, *words, env={"PROGRAM": str(program), "PATH": "/usr/bin:/bin"}).split()

    assert complete("") == commands
    assert complete("bench", "--conc") == ["--concurrency"]
    assert complete("serve", "--log-level", "d") == ["debug"]
