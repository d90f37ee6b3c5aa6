"""GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""

from importlib.metadata import version

from xlgpt.engines.read import OpenWorkbook, read
from xlgpt.engines.run import Answer, run
from xlgpt.errors import XlgptError
from xlgpt.interp.edit import Edited, edit
from xlgpt.model.tokenize import Steps, tokenize
from xlgpt.verify.check import check
from xlgpt.verify.report import Report
from xlgpt.workbook.build import Built, build
from xlgpt.workbook.options import Options

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
__version__ = version("xlgpt")
