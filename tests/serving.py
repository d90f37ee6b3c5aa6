"""A page's server in a thread, for the tests of xlgpt view."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xlgpt.view import PageServer


@contextmanager
def serving(files: Any) -> Iterator[PageServer]:
    with PageServer(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
