"""GPT-2 as a spreadsheet: every weight in a cell, every step a formula.

What stands here is imported when first asked for: a process that packs weights needs none of it, and starts in half
the time.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlgpt.engines.read import OpenWorkbook, read
    from xlgpt.engines.run import Answer, run
    from xlgpt.errors import XlgptError
    from xlgpt.interp.edit import Edited, edit
    from xlgpt.model.tokenize import Steps, tokenize
    from xlgpt.verify.check import check
    from xlgpt.verify.report import Report
    from xlgpt.workbook.build import Built, build
    from xlgpt.workbook.options import Options

    __version__: str

__all__ = [
    "Answer",
    "Built",
    "Edited",
    "OpenWorkbook",
    "Options",
    "Report",
    "Steps",
    "XlgptError",
    "build",
    "check",
    "edit",
    "read",
    "run",
    "tokenize",
]
_MODULES = {
    "engines.read": ["OpenWorkbook", "read"],
    "engines.run": ["Answer", "run"],
    "errors": ["XlgptError"],
    "interp.edit": ["Edited", "edit"],
    "model.tokenize": ["Steps", "tokenize"],
    "verify.check": ["check"],
    "verify.report": ["Report"],
    "workbook.build": ["Built", "build"],
    "workbook.options": ["Options"],
}
_MODULE_OF = {name: f"xlgpt.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("xlgpt")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'xlgpt' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
