from pathlib import Path

import pytest

from shrink.bench.host import host

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R)  Xeon(R) CPU @ 2.50GHz\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\n\nRevision\t: c04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(X86, "Intel(R) Xeon(R) CPU @ 2.50GHz, 2 cores"), (ARM, "Raspberry Pi 5 Model B Rev 1.0, 2 cores")],
)
def test_the_processor_is_read_from_cpuinfo(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert host(tmp_path / "cpuinfo", cores=2) == expected


def test_a_system_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    name, cores = host(tmp_path / "missing", cores=1).rsplit(", ", 1)
    assert name and cores == "1 core"
