"""GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""

from importlib.metadata import version

from xlgpt.build import Built, build
from xlgpt.errors import XlgptError

__all__ = ["Built", "XlgptError", "build"]
__version__ = version("xlgpt")
