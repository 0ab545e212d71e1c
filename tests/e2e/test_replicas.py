"""Replicas behind nginx and HAProxy, with the files of deploy/: the short form of tools/replicas-test.sh."""

import json
import os
import shutil
import subprocess

import pytest

from harness import ROOT

PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_kills_and_restarts_are_not_seen_behind(proxy, tmp_path):
    if not shutil.which(proxy, path=PATH):
        pytest.skip(f"{proxy} is not installed: apt-get install nginx-light haproxy")
    rows = tmp_path / "rows.json"
    r = subprocess.run([ROOT / "tools/replicas-test.sh", "--every", "2", "--rolls", "1", "--conversations", "24"],
                       env={**os.environ, "PROXIES": proxy, "MINUTES": "0.2", "JSON": str(rows)},
                       text=True, capture_output=True, timeout=300)
    assert r.returncode == 0, r.stdout + r.stderr
    row, = json.loads(rows.read_text())["rows"]
    for phase in (row["kill"], row["roll"]):
        assert phase["plain_failed"] == phase["streams_failed"] == 0 and min(phase["plain"], phase["streams"]) > 10, row
    assert row["kill"]["kills"] > 0 and row["roll"]["restarts"] == 3 and row["roll"]["streams_cut_by_kill"] == 0, row
    # Round robin shows that the header does it, not the number of replicas.
    shares = row["affinity"]
    assert shares["by_session"] >= 0.9 * shares["one_replica"] and shares["round_robin"] < 0.8 * shares["one_replica"], row
