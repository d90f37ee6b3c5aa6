"""GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""

from importlib.metadata import version

from xlgpt.build import Built, build
from xlgpt.check import check
from xlgpt.errors import XlgptError
from xlgpt.read import read
from xlgpt.report import Report
from xlgpt.run import Answer, run
from xlgpt.tokenize import Steps, tokenize

__all__ = ["Answer", "Built", "Report", "Steps", "XlgptError", "build", "check", "read", "run", "tokenize"]
__version__ = version("xlgpt")
