"""Our own images: the operator and the runners, built from the repository by the user's Dockerfiles.

Their tags are digests of what goes into them: an image that exists is not built again, and a node that has it
is not given it again.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.cluster import digest
from tests.cluster.emptyimages import REPOSITORY as REGISTRY
from tests.cluster.machine import Machine
from tests.cluster.packageindex import certificates, pip_conf
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import ClusterError, Timeline, run


@dataclass(frozen=True)
class Recipe:
    """How an image is built.

    Attributes:
        dockerfile: Relative to the repository, which is the build context.
        requirements: The hashed requirement file to install.
        sources: What else goes into it.
        arguments: Build arguments beside BASE and REQUIREMENTS.
    """

    dockerfile: str
    requirements: str
    sources: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that decides what the image holds, relative to the repository."""
        return (self.dockerfile, ".dockerignore", self.requirements, *self.sources)


_RUNNER = ("operator/src/evaljob", "runner_image/src/evaljob_runner")
RECIPES = {
    "operator": Recipe(
        "operator/Dockerfile",
        "requirements/operator.txt",
        ("operator/src/evaljob", "operator/src/evaljob_operator"),
    ),
    "runner": Recipe("runner_image/Dockerfile", "requirements/runner.txt", _RUNNER),
    "runner-cpu": Recipe(
        "runner_image/Dockerfile",
        "requirements/runner-cpu.txt",
        (*_RUNNER, "requirements/cpu_stubs.py"),
        ("CUDA=stubs",),
    ),
    "runner-lm-eval": Recipe(
        "runner_image/Dockerfile",
        "requirements/runner-lm-eval-cpu.txt",
        (*_RUNNER, "requirements/cpu_stubs.py"),
        ("CUDA=stubs",),
    ),
    # Only its packages are used: what `transformers serve` needs beside runner-cpu.
    "serving": Recipe("runner_image/Dockerfile", "requirements/serving.txt", _RUNNER),
}


def build(machine: Machine, names: Sequence[str], timeline: Timeline) -> dict[str, str]:
    """Build the images that the engine lacks.

    Args:
        machine: The machine to build on.
        names: Keys of `RECIPES`.
        timeline: Gets a stage for each image that is built.

    Returns:
        The reference of each image.

    Raises:
        ClusterError: If there is no such image, or a build fails.
    """
    unknown = set(names) - RECIPES.keys()
    if unknown:
        raise ClusterError(f"no image is called {sorted(unknown)}; there are {sorted(RECIPES)}")
    refs = {name: reference(name, RECIPES[name], machine.image.base) for name in names}
    with machine.cache.lock():
        for name, ref in refs.items():
            if not machine.docker.has_image(ref):
                with timeline.stage(f"image {name}"):
                    _build(machine, RECIPES[name], ref)
    return refs


def reference(name: str, recipe: Recipe, base: str) -> str:
    """The image's name, with the digest of its inputs as tag."""
    inputs = [REPOSITORY / path for path in recipe.inputs]
    return f"{REGISTRY}/{name}:{digest.of([base, *recipe.arguments, *inputs], REPOSITORY)}"


def _build(machine: Machine, recipe: Recipe, ref: str) -> None:
    command = [machine.docker.client, "build", "--file", recipe.dockerfile, "--tag", ref]
    arguments = (f"BASE={machine.image.base}", f"REQUIREMENTS={recipe.requirements}", *recipe.arguments)
    command += [f"--build-arg={argument}" for argument in arguments]
    # The build's own network has no way to a package index on a machine where only the host's has one.
    command += ["--network", "host"]
    with _secrets() as secrets:
        run(*command, *secrets, ".", cwd=REPOSITORY, env={"DOCKER_BUILDKIT": "1"})


@contextlib.contextmanager
def _secrets() -> Iterator[list[str]]:
    """The host's way to its package index. Secrets stay out of the image and of its cache key."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(pip_conf(os.environ))
        file.flush()
        bundle = certificates(os.environ)
        ca = ["--secret", f"id=ca,src={bundle}"] if bundle.exists() else []
        yield ["--secret", f"id=pipconf,src={file.name}", *ca]
