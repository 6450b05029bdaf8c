# ruff: noqa: INP001 - a script that is run by its path
"""Let torch import without NVIDIA libraries: `python requirements/cpu_stubs.py TORCH_DIR`.

The wheel links against 2.7 GB of CUDA libraries even when it computes on the CPU. This script writes 300 KB
of stubs beside it (`nvidia/cu13/lib`, on torch's own search path). Python loads extensions with RTLD_NOW, so
every symbol and symbol version must exist: they are read from the installed torch, and a second run does
nothing unless torch has changed. For CPU test images only: never run it where a GPU is used.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

STUBBED = re.compile(
    r"lib(cublas|cublasLt|cudart|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nccl|nvrtc|nvshmem_host)\.so"
)
PREFIXES = (
    # Libraries without symbol versions: the longest prefix of a symbol's name says where it belongs.
    ("cusparseLt", "libcusparseLt"),
    ("cuFile", "libcufile"),
    ("curand", "libcurand"),
    ("pnccl", "libnccl"),
    ("nccl", "libnccl"),
)
PRELOADED = ("libnvJitLink.so.13", "libnvrtc-builtins.so.13.0")
"""torch looks for these files by name before it imports; nothing links against them."""
BODIES = {
    "__cudaRegisterFatBinary": "static void *h[8]; void **__cudaRegisterFatBinary(void *p) { return h; }",
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int *n) { if (n) *n = 0; return 100; }",
    "cudaGetErrorName": 'const char *cudaGetErrorName(int e) { return "no CUDA (stub)"; }',
    "cudaGetErrorString": 'const char *cudaGetErrorString(int e) { return "no CUDA (stub)"; }',
    "cudaGetLastError": "int cudaGetLastError(void) { return 0; }",
    "cudaPeekAtLastError": "int cudaPeekAtLastError(void) { return 0; }",
    "cudaDriverGetVersion": "int cudaDriverGetVersion(int *v) { if (v) *v = 0; return 0; }",
    "cudaRuntimeGetVersion": "int cudaRuntimeGetVersion(int *v) { if (v) *v = 0; return 0; }",
}
"""What torch calls during import; every other function answers 100, cudaErrorNoDevice."""
SYMBOL_LINE = 8
"""Columns of a symbol in `readelf --dyn-syms`: number, value, size, type, bind, visibility, section, name."""


@dataclass(frozen=True)
class Symbol:
    """A symbol that torch expects from a library; `version` is empty where the library has none."""

    name: str
    version: str
    is_object: bool


@dataclass(frozen=True)
class Library:
    """What one of torch's own libraries needs from and defines for others."""

    needed: frozenset[str]
    defined: frozenset[str]
    wanted: tuple[tuple[str, Symbol], ...]
    """Pairs of a library's base name ("libcudart") and a symbol expected in it."""


def _base(soname: str) -> str:
    return soname.partition(".so")[0]


def _owner(name: str, version: str, versions: dict[str, str]) -> str | None:
    """The base name of the CUDA library a symbol comes from, or None for anything else."""
    if version:
        soname = versions.get(version, "")
        return _base(soname) if STUBBED.match(soname) else None
    return next((library for prefix, library in PREFIXES if name.startswith(prefix)), None)


def _versions(text: str) -> dict[str, str]:
    """Symbol version → soname, from the "version needs" section of `readelf --version-info`."""
    found: dict[str, str] = {}
    soname = ""
    for line in text.splitlines():
        if match := re.search(r"File: (\S+)", line):
            soname = match[1]
        elif soname and (match := re.search(r"Name: (\S+)\s+Flags: .*Version: \d+", line)):
            found[match[1]] = soname
    return found


def _symbols(text: str) -> Iterator[tuple[str, str, str, str]]:
    """(name, version, type, section) for each line of `readelf --dyn-syms`."""
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= SYMBOL_LINE and columns[0] != "Num:":
            name, _, version = columns[7].partition("@")
            yield name, version.strip("@"), columns[3], columns[6]


def parse(text: str) -> Library:
    """Read the output of `readelf --dynamic --version-info --dyn-syms --wide` for one library."""
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    versions = _versions(text)
    defined: set[str] = set()
    wanted: list[tuple[str, Symbol]] = []
    for name, version, kind, section in _symbols(text):
        if section != "UND":
            defined.add(name)
        elif owner := _owner(name, version, versions):
            wanted.append((owner, Symbol(name, version, kind == "OBJECT")))
    return Library(frozenset(n for n in needed if STUBBED.match(n)), frozenset(defined), tuple(wanted))


def plan(libraries: Iterable[Library]) -> dict[str, frozenset[Symbol]]:
    """Soname of each stub to write → the symbols it must have."""
    libraries = list(libraries)
    defined = frozenset().union(*(library.defined for library in libraries))
    symbols: dict[str, set[Symbol]] = defaultdict(set)
    for library in libraries:
        for owner, symbol in library.wanted:
            if symbol.name not in defined:
                symbols[owner].add(symbol)
    sonames = frozenset().union(*(library.needed for library in libraries))
    stubs = {soname: frozenset(symbols[_base(soname)]) for soname in sorted(sonames)}
    return stubs | {soname: frozenset() for soname in PRELOADED}


def source(symbols: frozenset[Symbol]) -> str:
    """The C text of a stub."""
    objects = {symbol.name for symbol in symbols if symbol.is_object}
    lines = []
    for name in sorted({symbol.name for symbol in symbols}):
        if name in objects:
            lines.append(f"void *{name}[64];")
        else:
            answer = 0 if name.startswith("__cuda") else 100
            lines.append(BODIES.get(name, f"int {name}(void) {{ return {answer}; }}"))
    return "\n".join([*lines, ""])


def version_script(symbols: frozenset[Symbol]) -> str:
    """The linker's version script of a stub; empty for a library without symbol versions."""
    names: dict[str, set[str]] = defaultdict(set)
    for symbol in symbols:
        if symbol.version:
            names[symbol.version].add(symbol.name)
    return "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names[version]))} }};\n"
        for version in sorted(names)
    )


def _read(path: Path) -> Library:
    command = ["readelf", "--dynamic", "--version-info", "--dyn-syms", "--wide", str(path)]
    return parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _compile(soname: str, symbols: frozenset[Symbol], folder: Path) -> int:
    """Write one stub into `folder`; returns its size in bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        code, versions = Path(temporary, "stub.c"), Path(temporary, "stub.map")
        code.write_text(source(symbols))
        versions.write_text(version_script(symbols))
        script = [f"-Wl,--version-script={versions}"] if versions.stat().st_size else []
        options = ["-shared", "-fPIC", "-w", "-O1", "-s", "-nostdlib", f"-Wl,-soname,{soname}", *script]
        subprocess.run(["gcc", *options, "-o", str(folder / soname), str(code)], check=True)
    return (folder / soname).stat().st_size


def _build_id(torch: Path) -> str:
    """Changes with this torch build and with this script."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update((torch / "version.py").read_bytes())
    for library in sorted((torch / "lib").glob("*.so*")):
        digest.update(f"{library.name} {library.stat().st_size}\n".encode())
    return digest.hexdigest()


def write_stubs(torch: Path) -> str:
    """Write the stubs for the torch package at `torch`, unless they are there; returns what was done.

    Raises:
        FileNotFoundError: `torch` is not an installed torch package, or gcc or readelf is missing.
        subprocess.CalledProcessError: gcc or readelf failed.
    """
    if not (torch / "version.py").is_file():
        raise FileNotFoundError(f"{torch} is no torch package: give the folder that holds torch's version.py")
    folder = torch.parent / "nvidia" / "cu13" / "lib"
    stamp, build = folder / "cpu-stubs.stamp", _build_id(torch)
    if stamp.is_file() and stamp.read_text() == build:
        return f"CUDA stubs are up to date in {folder}"
    _require({"gcc": "gcc and libc6-dev", "readelf": "binutils"})
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    with ThreadPoolExecutor(2) as pool:
        stubs = plan(pool.map(_read, sorted((torch / "lib").glob("*.so*"))))
    size = sum(_compile(soname, symbols, folder) for soname, symbols in stubs.items())
    stamp.write_text(build)
    return f"{len(stubs)} CUDA stubs ({size // 1024} KiB) written to {folder}"


def _require(tools: dict[str, str]) -> None:
    for tool, package in tools.items():
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"{tool} is not installed: apt-get install {package}")


def main() -> None:
    """Parse the command line, write the stubs, say what was done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "torch_dir", type=Path, help="the installed package, as in .venv/lib/python3.11/site-packages/torch"
    )
    try:
        print(write_stubs(parser.parse_args().torch_dir))
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"cpu_stubs: {error}")


if __name__ == "__main__":
    main()
