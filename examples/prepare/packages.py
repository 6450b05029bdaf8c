"""The packages that carry the content: their files are read, none is imported or executed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def version(package: str) -> str:
    """The installed version of a package.

    Raises:
        FileNotFoundError: it is not installed; the message says how to install it.
    """
    try:
        return distribution(package).version
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"package {package} is missing: pip install --no-deps -r requirements/examples.txt"
        ) from None


def file(package: str, path: str) -> Path:
    """Where a file of an installed package lies; `path` starts at the package's top folder.

    Raises:
        FileNotFoundError: the package or the file is not there.
    """
    installed = version(package)
    found = Path(str(distribution(package).locate_file(path)))
    if not found.is_file():
        raise FileNotFoundError(
            f"{package} {installed} has no file {path}: install the one in requirements/examples.txt"
        )
    return found
