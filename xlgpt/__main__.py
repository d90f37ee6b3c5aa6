"""`python -m xlgpt`."""

from xlgpt.cli import main

if __name__ == "__main__":
    main()
