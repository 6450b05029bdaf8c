"""The operator in a process that has its imports behind it: they take a second, and a sweep starts it often.

What started this process is imported too, as multiprocessing does that in each child.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.plane.operatorprocess import OperatorProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["evaljob_operator.__main__", "pytest", __name__])


def warm_up() -> None:
    """Start the server and wait for its imports: the first start of an operator would hold up everybody else."""
    first = _CONTEXT.Process(target=int)
    first.start()
    first.join()


class WarmOperator(OperatorProcess):
    """As `OperatorProcess`; forked from a server that does nothing but import, and never from this process."""

    _child: ForkServerProcess | None = None

    def _start(self) -> None:
        arguments = (self._argv[self._argv.index("--config") :], self._env, self.log)
        self._child = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self._child.start()

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._child is not None
        assert self._child.pid is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._child is not None and self._child.is_alive()

    def kill(self) -> None:
        """`kill -9`, as a node that loses power."""
        if self._child is not None and self.running:
            self._child.kill()
            self._child.join()


def _serve(argv: list[str], env: Mapping[str, str], log: Path) -> None:
    """In the new process: what the interpreter and the image do before `main`."""
    from kubernetes.config import kube_config

    from evaljob_operator.__main__ import main

    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(env)
    # Read from the environment when it was imported.
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = env["KUBECONFIG"]
    sys.exit(main(argv))
