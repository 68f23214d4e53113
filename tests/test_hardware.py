"""The number of cores heeds affinity and the quotas of containers; a processor's name tells different ones apart."""

import os
from pathlib import Path

import pytest

from bothways import hardware as processor
from bothways.hardware import cores, multiplies_bytes


@pytest.fixture
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def counted(tmp_path: Path, groups: str, files: dict[str, str]) -> int:
    write(tmp_path / "groups", groups)
    for name, text in files.items():
        write(tmp_path / "mount" / name, text)
    return cores(tmp_path / "groups", tmp_path / "mount")


V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "max\n"}, 16),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # a part of a core counts as one
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "300000\n"}, 3),  # the usual period
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 16),  # more than the affinity
        ("0::/\n", {"cpu.max": "nonsense\n"}, 16),
        ("0::/\n", {"cpu.max": "\n"}, 16),
        ("0::/\n", {"cpu.max": "0 0\n"}, 16),
        ("0::/\n", {}, 16),
        ("", {"cpu.max": "200000 100000\n"}, 16),
        # The group of the process, one above it, or one that a container sees as the root.
        ("0::/pod/app\n", {"pod/app/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ("0::/pod/app\n", {"pod/app/cpu.max": "max 100000", "pod/cpu.max": "400000 100000"}, 4),
        ("0::/pod/app\n", {"pod/app/cpu.max": "600000 100000", "pod/cpu.max": "400000 100000"}, 4),
        ("0::/docker/1f0e\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../../other\n", {"cpu.max": "200000 100000"}, 2),
        # Version 1, with its controllers in folders of their own; -1 is no quota.
        ("4:cpu,cpuacct:/\n0::/\n", {f"cpu,cpuacct/{V1[0]}": "250000", f"cpu,cpuacct/{V1[1]}": "100000"}, 3),
        ("4:cpu,cpuacct:/docker/1f\n", {f"cpu/docker/1f/{V1[0]}": "50000", f"cpu/docker/1f/{V1[1]}": "100000"}, 1),
        ("1:cpu:/a\n", {f"cpu/{V1[0]}": "-1\n", f"cpu/{V1[1]}": "100000\n"}, 16),
        ("1:cpu:/a\n", {f"cpu/{V1[0]}": "200000\n", f"cpu/{V1[1]}": "0\n"}, 16),
        ("3:cpuset:/\n", {f"cpu/{V1[0]}": "200000\n", f"cpu/{V1[1]}": "100000\n"}, 16),
        # Both versions at once, version 2 in a folder of its own.
        ("2:memory:/\n0::/x\n", {"unified/x/cpu.max": "500000 100000"}, 5),
    ],
)
def test_quotas_of_containers_count(tmp_path, sixteen, groups, files, expected):
    assert counted(tmp_path, groups, files) == expected


def test_without_control_groups_the_affinity_counts(tmp_path, sixteen):
    assert cores(tmp_path / "missing", tmp_path / "missing") == 16


def test_here_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= cores() <= (os.cpu_count() or 1)


def named(monkeypatch, info: dict[str, str]) -> str:
    monkeypatch.setattr(processor, "_first", lambda: info)
    return processor.processor()


def test_processors_without_a_name_or_with_other_flags_are_told_apart(monkeypatch):
    monkeypatch.setattr(processor.platform, "processor", lambda: "aarch64")
    graviton = [{"CPU implementer": "0x41", "CPU part": part, "Features": "asimd"} for part in ("0xd0c", "0xd4f")]
    assert named(monkeypatch, graviton[0]) != named(monkeypatch, graviton[1])
    virtual = [{"model name": "Virtual CPU", "flags": flags} for flags in ("avx2 avx512_vnni", "avx2")]
    assert named(monkeypatch, virtual[0]) != named(monkeypatch, virtual[1])
    assert named(monkeypatch, virtual[0]) == named(monkeypatch, virtual[0] | {"flags": "avx512_vnni avx2"})


@pytest.mark.parametrize(
    ("machine", "info", "exact"),
    [
        ("x86_64", {"flags": "avx2 avx512_vnni"}, True),
        ("x86_64", {"flags": "avx2"}, False),
        ("AMD64", {}, False),  # Windows does not say
        ("arm64", {}, True),
        ("aarch64", {"Features": "asimd"}, True),
    ],
)
def test_whether_8_bit_products_are_exact(monkeypatch, machine, info, exact):
    monkeypatch.setattr(processor, "_first", lambda: info)
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert multiplies_bytes() is exact
