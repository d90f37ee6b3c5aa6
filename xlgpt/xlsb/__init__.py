"""Excel's binary format ([MS-XLSB]): records, read and written, and formulas as tokens."""
