"""What requirements/cpu_stubs.py makes of readelf's output."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "cpu_stubs.py"
READELF = """
 0x0000000000000001 (NEEDED)             Shared library: [libcudart.so.13]
 0x0000000000000001 (NEEDED)             Shared library: [libnccl.so.2]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]

Symbol table '.dynsym' contains 5 entries:
   Num:    Value          Size Type    Bind   Vis      Ndx Name
     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND cudaGetDeviceCount@libcudart.so.13 (4)
     2: 0000000000000000     0 OBJECT  GLOBAL DEFAULT  UND cudaTable@libcudart.so.13 (4)
     3: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND ncclSend
     4: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND malloc@GLIBC_2.2.5 (2)
     5: 0000000000001000    16 FUNC    GLOBAL DEFAULT   12 ncclLocal

Version needs section '.gnu.version_r' contains 2 entries:
  000000: Version: 1  File: libc.so.6  Cnt: 1
  0x0010:   Name: GLIBC_2.2.5  Flags: none  Version: 2
  0x0020: Version: 1  File: libcudart.so.13  Cnt: 1
  0x0030:   Name: libcudart.so.13  Flags: none  Version: 4
"""
USES_LOCAL = "     1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND ncclLocal\n"


@pytest.fixture(scope="module")
def stubs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpu_stubs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cpu_stubs"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_each_cuda_library_gets_the_symbols_torch_expects_from_it(stubs: ModuleType) -> None:
    plan = stubs.plan([stubs.parse(READELF)])
    assert {s.name for s in plan["libcudart.so.13"]} == {"cudaGetDeviceCount", "cudaTable"}
    assert {s.name for s in plan["libnccl.so.2"]} == {"ncclSend"}
    assert "libc.so.6" not in plan


def test_libraries_that_torch_looks_up_by_name_are_made_empty(stubs: ModuleType) -> None:
    plan = stubs.plan([stubs.parse(READELF)])
    assert plan["libnvJitLink.so.13"] == frozenset()
    assert plan["libnvrtc-builtins.so.13.0"] == frozenset()


def test_a_symbol_one_of_torchs_own_libraries_defines_is_no_stub(stubs: ModuleType) -> None:
    """A stub of it would stand before the real function."""
    plan = stubs.plan([stubs.parse(READELF), stubs.parse(USES_LOCAL)])
    assert "ncclLocal" not in {s.name for s in plan["libnccl.so.2"]}


def test_no_device_is_counted_and_data_symbols_are_objects(stubs: ModuleType) -> None:
    code = stubs.source(stubs.plan([stubs.parse(READELF)])["libcudart.so.13"])
    assert "int cudaGetDeviceCount(int *n) { if (n) *n = 0; return 100; }" in code
    assert "void *cudaTable[64];" in code


def test_symbol_versions_are_kept(stubs: ModuleType) -> None:
    """The loader refuses a library without the version torch was linked against."""
    plan = stubs.plan([stubs.parse(READELF)])
    script = "libcudart.so.13 { global: cudaGetDeviceCount; cudaTable; };\n"
    assert stubs.version_script(plan["libcudart.so.13"]) == script
    assert stubs.version_script(plan["libnccl.so.2"]) == ""


def test_a_folder_that_is_no_torch_is_refused_by_name(stubs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"is no torch package: give the folder that holds torch's version.py"
    ):
        stubs.write_stubs(tmp_path)


def test_a_missing_compiler_is_named_with_its_debian_package(
    stubs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="gcc is not installed: apt-get install gcc"):
        stubs.write_stubs(tmp_path / "torch")
