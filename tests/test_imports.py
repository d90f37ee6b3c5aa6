"""What `import xlgpt` offers, and what a process that packs weights must not load."""

import subprocess
import sys

import xlgpt


def test_every_name_is_there_and_others_are_not() -> None:
    offered = {name: getattr(xlgpt, name) for name in xlgpt.__all__}
    assert all(value.__module__.startswith("xlgpt.") for value in offered.values())
    assert {*offered, "__version__"} == set(dir(xlgpt))
    assert not hasattr(xlgpt, "bulid")


def test_packing_weights_loads_no_engine_and_no_view() -> None:
    code = "import sys, xlgpt.workbook.weightsheet, xlgpt.xlsb.sheet_data; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "xlgpt.workbook.weightsheet" in loaded
    assert not {"formulas", "xlsxwriter", "xlgpt.engines", "xlgpt.verify", "xlgpt.oracle"} & set(loaded)
