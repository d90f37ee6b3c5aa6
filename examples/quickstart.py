"""Build a workbook, let its own formulas calculate another prompt, and read the answer back.

    python examples/quickstart.py

Uses LibreOffice where it is installed, and otherwise the Python formula library.
"""

import xlgpt
from xlgpt.errors import EngineNotFound


def main() -> None:
    built = xlgpt.build("quickstart.xlsx", model="tiny", prompt="If today is Tuesday, tomorrow is")
    print(built)
    prompt = "Mike is a Jedi. He pulls out his"
    try:
        answer = xlgpt.run(built.path, prompt)
    except EngineNotFound:
        answer = xlgpt.run(built.path, prompt, engine="formulas")
    print(f"{answer.prompt}{answer.next_token}")
    for candidate in answer.top[:3]:
        print(f"{candidate.probability:6.1%}  {candidate.token}")


if __name__ == "__main__":
    main()
