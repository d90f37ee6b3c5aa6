"""A workbook on a web page, calculated in the browser: served to this machine only, or written into a folder."""

from xlgpt.view.serve import PageServer
from xlgpt.view.site import Site, export, site

__all__ = ["PageServer", "Site", "export", "site"]
