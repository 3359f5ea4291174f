"""The Triton kernels of a Transformer block, in Triton's interpreter on a CPU, against torch."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmfe_cache.errors import UsageError
from mmfe_restore import load_recipe
from mmfe_restore.kernels import check_kernels
from mmfe_restore.training.machine import Machine

pytestmark = pytest.mark.timeout(900)  # a busy machine decides nothing


@pytest.fixture(scope="module")
def found():
    if find_spec("triton") is None:
        pytest.skip("no Triton here")
    script, root = Path(__file__).with_name("interpreted.py"), Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["one head, several tiles", "three heads, two images", "one row"])
def test_output_and_every_gradient_in_float32(found, case):
    assert len(found[case]) == 13
    for name, (fused, _) in found[case].items():
        assert fused < 1e-5, name


def test_in_float64_nothing_but_rounding_is_left(found):
    for name, (fused, _) in found["float64"].items():
        assert fused < 1e-12, name


@pytest.mark.parametrize("case", ["bfloat16", "bfloat16, three heads"])
def test_in_bfloat16_output_and_gradients_are_the_truth_to_a_hundredth(found, case):
    assert len(found[case]) == 13
    for name, (fused, _) in found[case].items():
        if (case, name) != ("bfloat16, three heads", "attn.temperature"):
            assert fused < 1e-2, name


def test_in_bfloat16_the_temperatures_gradient_is_as_near_as_its_terms(found):
    # Where terms of both signs cancel, rounding the input alone moves their sum by a hundredth.
    terms = found["temperature"]
    assert terms["input rounded"] > 1e-2
    for distance in found["bfloat16, three heads"]["attn.temperature"]:  # ours and torch's
        assert 1e-2 < distance < 2**-8 * terms["absolute"]  # bfloat16 rounds to within 2^-9


def test_gradients_are_those_of_finite_differences(found):
    assert found["gradcheck"] is True


def test_the_depthwise_convolution_that_is_timed_alone_is_torchs(found):
    assert set(found["depthwise"]) == {"forward", "data gradient", "weight gradient"}
    for name, off in found["depthwise"].items():
        assert off < 1e-12, name


def test_where_they_cannot_run_an_error_says_so_and_what_to_do(monkeypatch):
    recipe = load_recipe("cdd11", ["train.kernels=triton"])
    here = Machine(0, 1, 1, 1, "cpu", None)
    with pytest.raises(UsageError, match="needs a CUDA GPU") as refused:
        here.check(recipe)
    assert "train.kernels=torch" in str(refused.value.remedy)
    monkeypatch.setattr("mmfe_restore.kernels.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs Triton"):
        check_kernels("cuda")


def test_the_library_and_the_check_import_no_triton():
    code = (
        "import sys; sys.modules['triton'] = None; from mmfe_restore.kernels import check_kernels;"
        "check_kernels"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
