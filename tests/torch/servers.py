"""Servers as processes of this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


@contextmanager
def serving(folder: Path, command: Sequence[str | Path]) -> Iterator[str]:
    """Run a server of this environment; ended by its process id.

    Args:
        folder: an empty one, for its log and its caches.
        command: what the interpreter runs; `--port N` is added.

    Yields:
        Its base address, once it answers `/health`.
    """
    port = _free_port()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    log = folder / "log"
    with log.open("w") as said:
        arguments = [sys.executable, *command, "--port", str(port)]
        process = subprocess.Popen(arguments, env=environment, stdout=said, stderr=said)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(address, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(f"not ready: {log.read_text()[-2000:]}")
