"""One table of types: torch, safetensors and the command line mean the same by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from genpercept.core import dtypes


@pytest.mark.parametrize("row", dtypes.FLOATS)
def test_every_name_is_of_one_type(row: dtypes.Float, tmp_path: Path) -> None:
    dtype = dtypes.to_torch(row.name)
    assert dtype.is_floating_point and dtypes.to_torch(row.torch) is dtype and dtypes.torch_name(dtype) == row.torch
    assert dtypes.to_openvino(dtype) == row.openvino
    save_file({"x": torch.zeros(1, dtype=dtype)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        stored = file.get_slice("x").get_dtype()
    assert stored == row.safetensors and dtypes.from_safetensors(stored) == row.torch


def test_other_types_keep_their_names() -> None:
    assert [dtypes.from_safetensors(n) for n in ("I64", "F64", "BOOL", "U8")] == ["int64", "float64", "bool", "U8"]
    assert dtypes.to_openvino(None) == dtypes.to_openvino(torch.float64) == "f32"


def test_only_what_is_coarser_is_cast() -> None:
    assert [dtypes.autocast(n) for n in ("fp32", "bf16", "fp16")] == [None, torch.bfloat16, torch.float16]


def test_refusals_are_one_line_with_the_choices() -> None:
    dtypes.check("fp16")
    with pytest.raises(ValueError, match=r"^dtype='fp8': choose fp32, bf16, fp16$"):
        dtypes.check("fp8")
    with pytest.raises(ValueError, match=r"^dtype for onnx='bf16': choose fp32, fp16$"):
        dtypes.check("bf16", ("fp32", "fp16"), "dtype for onnx")
    with pytest.raises(ValueError, match=r"^dtype='int8': choose fp32, bf16, fp16, float32, bfloat16, float16$"):
        dtypes.to_torch("int8")


def test_the_names_cost_no_torch() -> None:
    """The command line's --help lists them."""
    code = "import sys; from genpercept.core import dtypes; dtypes.check('bf16'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
