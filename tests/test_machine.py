"""What this machine has, and its container allows."""

import os

from pipeline import machine
from pipeline.machine import cores_here, in_gigabytes, memory_here


def test_the_containers_limit_counts_where_it_is_the_smaller(monkeypatch, tmp_path):
    whole = memory_here()
    for text, memory in (("1000000\n", 1_000_000), ("max\n", None), (str(2**62), None)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(machine, "LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "nothing")))
        assert memory_here() == memory or (memory is None and memory_here() >= whole)


def test_a_system_that_does_not_tell_its_memory_has_enough(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert memory_here() == 2**63


def test_cores_are_counted_by_affinity_by_the_containers_limit_and_without_either(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores_here() == 6
    limits = {"max 100000\n": 6, "250000 100000\n": 3, "50000 100000\n": 1, "0 100000": 1, "1 0": 6, "nonsense": 6}
    for content, count in limits.items():
        (tmp_path / "cpu.max").write_text(content)
        assert cores_here() == count
    monkeypatch.delattr(os, "sched_getaffinity")
    (tmp_path / "cpu.max").unlink()
    assert cores_here() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores_here() == 1


def test_sizes_in_gigabytes():
    assert [in_gigabytes(size) for size in (3e8, 1_234_567e6, 2**63)] == ["0.3 GB", "1,235 GB", "9,223,372,037 GB"]
