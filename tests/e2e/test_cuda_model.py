"""tools/cuda_model.py: what `make cuda-model-check` fails at, and what the model needs to be read."""

import argparse
import subprocess
import sys

import pytest

from harness import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import cuda_model

KERNEL = "k_few<Q4_0, 1, false>"


def compiled(**changed):
    """As the stored kernels, one of them changed."""
    base = cuda_model.stored()
    kernels = {**base["kernels"], KERNEL: {**base["kernels"][KERNEL], **changed}}
    return {**base, "kernels": kernels}


def test_a_kernel_that_spills_more_or_grows_by_more_than_5_percent_is_a_fault():
    base = cuda_model.stored()
    was = base["kernels"][KERNEL]
    assert cuda_model.faults(compiled(), base) == []
    assert cuda_model.faults(compiled(work=was["work"] * 1.04), base) == []
    for changed in ({"work": was["work"] * 1.06}, {"work": None}, {"spilled": was["spilled"] + 4}):
        wrong = cuda_model.faults(compiled(**changed), base)
        assert len(wrong) == 1 and wrong[0].startswith(KERNEL)


def test_another_compiler_is_compared_by_what_it_spills_alone(capsys):
    base = cuda_model.stored()
    other = {**compiled(work=1e9, spilled=1000), "nvcc": "0.0"}
    assert len(cuda_model.faults(other, base)) == 1
    assert "are not compared" in capsys.readouterr().out


@pytest.mark.parametrize("lacks", ["nvcc", "cuobjdump", "nvdisasm"])
def test_without_its_tools_the_check_says_so_and_passes(lacks, monkeypatch, capsys):
    monkeypatch.setattr(cuda_model, "find", lambda _, name, *__: None if name == lacks else "/bin/true")
    assert cuda_model.check(argparse.Namespace(sm="90", jobs=1, write=False)) == 0
    assert f"skipped, no {lacks}" in capsys.readouterr().out


def test_predictions_can_be_made_for_every_type():
    types = ",".join({**cuda_model.BITS, **cuda_model.STORED})
    r = subprocess.run([sys.executable, ROOT / "tools/cuda_model.py", "predict", "--types", types, "--batch", "1,9,64"], text=True,
                       capture_output=True, check=True)
    assert len(r.stdout.splitlines()) == 2 + 4 * 3 * len({**cuda_model.BITS, **cuda_model.STORED})
    assert all(0.05 < float(line.split()[-1].rstrip("%")) / 100 < 1 for line in r.stdout.splitlines()[2:])
