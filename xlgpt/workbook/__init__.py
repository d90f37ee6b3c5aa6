"""What a workbook is made of, written to a file and read back from one."""
