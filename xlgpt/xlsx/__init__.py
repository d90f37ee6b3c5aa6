"""The file format (ECMA-376): cells and ranges, formulas, the zip archive, and sheets read back."""
