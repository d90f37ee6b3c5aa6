"""Compile GPT-2 into a spreadsheet that runs it."""
