"""Which errors say that memory ran out, and which end the whole work."""

import errno

import pytest

from i2i.errors import ImageError, OutputError, out_of_memory
from i2i.folders import pipeline
from i2i.images.large import SpoolError

torch = pytest.importorskip("torch")


@pytest.mark.promise("R37")
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.OutOfMemoryError("CUDA"),  # known by its name alone
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_memory_that_ran_out(error: Exception) -> None:
    assert out_of_memory(error) and "not enough memory" in pipeline.failure(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), ImageError("damaged")])
def test_other_errors(error: Exception) -> None:
    assert not out_of_memory(error) and str(error) in pipeline.failure(error)


def test_what_would_befall_the_next_one_too() -> None:
    full = OutputError("no room")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    long = OutputError("this name")
    long.__cause__ = OSError(errno.ENAMETOOLONG, "File name too long")
    assert pipeline.refuses_all(full) and not pipeline.refuses_all(long)
    with pytest.raises(OutputError):
        pipeline.failure(full)
    assert pipeline.failure(SpoolError("no room for this one")) == "no room for this one"
