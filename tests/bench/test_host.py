from pathlib import Path

import pytest

from shrink.bench.host import host, int8_dot_products

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R)  Xeon(R) CPU @ 2.50GHz\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\n\nRevision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


def root_with(folder: Path, cpuinfo: str) -> Path:
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text(cpuinfo)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [(X86, "Intel(R) Xeon(R) CPU @ 2.50GHz, 2 cores"), (ARM, "Raspberry Pi 5 Model B Rev 1.0, 2 cores")],
)
def test_the_processor_is_read_from_cpuinfo(tmp_path: Path, text: str, expected: str) -> None:
    assert host(root_with(tmp_path, text), cores=2) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flags\t\t: fpu sse2 avx2 fma avx512f avx512_vnni\n", "int8 dot products (avx512_vnni)"),
        ("flags\t\t: fpu sse2 avx2 fma avx_vnni amx_int8\n", "int8 dot products (amx_int8)"),
        ("flags\t\t: fpu sse2 avx2 fma avx512f\n", "no int8 dot products"),
        ("Features\t: fp asimd asimddp i8mm\n", "int8 dot products (i8mm)"),
        ("Features\t: fp asimd crc32\n", "no int8 dot products"),  # Cortex-A72
        ("", ""),
    ],
)
def test_what_int8_gains_from_is_part_of_the_name(tmp_path: Path, line: str, said: str) -> None:
    root = root_with(tmp_path, X86 + line)
    assert int8_dot_products(root) == said
    assert host(root, cores=2) == f"Intel(R) Xeon(R) CPU @ 2.50GHz, 2 cores{', ' + said if said else ''}"


def test_a_system_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    name, cores = host(tmp_path / "missing", cores=1).rsplit(", ", 1)
    assert name and cores == "1 core"
