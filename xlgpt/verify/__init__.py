"""Holds a finished workbook against the templates and against NumPy."""
