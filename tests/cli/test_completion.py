"""What the shell completes, without torch."""

from __future__ import annotations

import subprocess
import sys

from mmfe_cli import completion


def test_values_begin_with_what_was_typed():
    assert completion.datasets("aio") == ["aio3", "aio5", "aio5-rain13k"]
    assert completion.guides("fast") == ["fastvlm-0.5b", "fastvlm-1.5b"]
    assert completion.recipes("table4b/f") == ["table4b/full"]
    assert completion.tables("table5") == ["table5a", "table5b", "table5c"]


def test_completion_imports_no_torch():
    code = (
        "import sys; from mmfe_cli import completion as c; "
        "c.datasets(''), c.guides(''), c.recipes(''), c.tables(''); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
