"""docs/chart-*.svg: each is drawn of the result that it names, and each benchmark's form of result can be drawn."""

import json
import re
import sys
import xml.etree.ElementTree as ET

from harness import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import chart  # noqa: E402


def test_charts_are_those_of_the_results_that_they_name(tmp_path):
    for name, draw in chart.OF_BENCHMARK.items():
        kept, again = chart.DOCS / f"chart-{name}.svg", tmp_path / f"{name}.svg"
        if chart.newest(name):
            assert kept.exists(), f"make charts: {kept}"
            draw(chart.RESULTS / re.search(rf"bench/results/({name}-.*\.json)", kept.read_text())[1], again)
            assert again.read_text() == kept.read_text(), f"make charts: {kept}"


def texts(file):
    return [e.text for e in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_live_beside_simulated(tmp_path):
    figure = lambda live, simulated: {"live": live, "simulated": simulated, "difference_percent": 0, "scatter_percent": 10}
    rows = [{"load": x, "repeats": 5, "tpot_mean": figure(40 * x, 44 * x), "tpot_p99": figure(80, 88), "ttft_mean": figure(200, 210),
             "ttft_p99": figure(900, 1000)} for x in (0.3, 0.85)]
    path = tmp_path / "simulate-cpu.json"
    path.write_text(json.dumps({"machine": {"cpu": "A", "family": "6", "model": "1", "cores": 2}, "model_file": "m.gguf", "requests": 1000, "rows": rows}))
    chart.simulate(path, tmp_path / "chart.svg")
    got = texts(tmp_path / "chart.svg")
    for text in ("30% mean", "85% p99", "live", "simulated", "34", "37", "900", "1,000"):
        assert text in got, (text, got)
    assert (tmp_path / "chart.svg").read_text().count("<path") == 8  # a whisker for each live figure
