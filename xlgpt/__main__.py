"""`python -m xlgpt`."""

from xlgpt.cli import main

main()
