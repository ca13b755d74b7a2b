"""Freed memory is kept while it is asked to be, and given back afterwards."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from graphmoe.training.memory import give_back, reused_memory

PAGES = 16_384  # of 4 KiB: an array of 64 MiB, which glibc would always map afresh


def faults_of_ten_arrays() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(PAGES * 1024).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's allocator")
def test_arrays_are_mapped_once_inside_and_as_before_outside() -> None:
    faults_of_ten_arrays()
    with reused_memory() as works:
        assert works
        faults_of_ten_arrays()
        inside = faults_of_ten_arrays()
    outside = faults_of_ten_arrays()
    assert inside < PAGES // 2
    assert outside > 10 * inside


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's allocator")
def test_what_is_kept_can_be_given_back_inside() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])  # in pages

    with reused_memory():
        before = resident()
        torch.zeros(PAGES * 1024).add_(1)
        assert resident() > before + PAGES // 2  # freed, and kept
        assert give_back()
        assert resident() < before + PAGES // 2
