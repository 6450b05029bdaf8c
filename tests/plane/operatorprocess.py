"""The operator as the image runs it: `python -m evaljob_operator --config FILE`, started again when it ends."""

import asyncio
import json
import sys
from collections.abc import Sequence

from tests.plane.plane import IMAGES, OPERATOR, Plane
from tests.plane.programs import Program


class OperatorProcess(Program):
    """One replica.

    Args:
        plane: where it works.
        namespaces: whose EvalJobs it takes.
        name: of its files.
        server: the address it is given for the API server; None for the real one.
    """

    def __init__(self, plane: Plane, namespaces: Sequence[str], name: str, server: str | None = None) -> None:
        config = plane.folder / f"{name}.json"
        settings = {"namespaces": list(namespaces), "plan": {"images": IMAGES}, "logLevel": "INFO"}
        config.write_text(json.dumps(settings))
        super().__init__(
            [sys.executable, "-m", "evaljob_operator", "--config", str(config)],
            plane.folder / f"{name}.log",
            # No home of this user; the rest as in operator/Dockerfile.
            {
                "KUBECONFIG": str(plane.kubeconfig(OPERATOR, server)),
                "HOME": str(plane.folder),
                "USER": "evaljob",
                "MALLOC_ARENA_MAX": "2",
                "MALLOC_MMAP_THRESHOLD_": "131072",
            },
        )
        self.starts = 0
        self.held = False
        """Not to be started for the time being."""
        self._log_at_start = 0

    def start(self) -> None:
        """Start it, or start it again."""
        self._log_at_start = self.log.stat().st_size if self.log.exists() else 0
        super().start()
        self.starts += 1

    def ready(self) -> bool:
        """Whether it runs and has made its first lists."""
        return self.running and b'"ready; ' in self.log.read_bytes()[self._log_at_start :]

    async def supervise(self) -> None:
        """Start it whenever it is not there, as a Deployment does, until cancelled."""
        try:
            while True:
                if not self.running and not self.held:
                    self.start()
                await asyncio.sleep(0.05)
        finally:
            self.kill()
