"""GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""

from importlib.metadata import version

from xlgpt.build import Built, build
from xlgpt.check import check
from xlgpt.errors import XlgptError
from xlgpt.report import Report
from xlgpt.run import Answer, run

__all__ = ["Answer", "Built", "Report", "XlgptError", "build", "check", "run"]
__version__ = version("xlgpt")
