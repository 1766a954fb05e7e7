"""The history of generated images: it fills, exchanges half, and is a function of the seed and its state; and the
numbers that a training adapts."""

import pytest
import torch

from i2i.algorithms.algorithm import ImagePool
from i2i.algorithms.cyclegan import CycleGAN, CycleGANOptions
from i2i.data.pair import ImagePair
from i2i.training.schedule import TrainingOptions
from i2i.training.step import ProcessGroup, TrainingStep


def image(value: float) -> torch.Tensor:
    return torch.full((1, 1, 2, 2), value)


def test_without_a_history_images_pass_detached() -> None:
    fakes = torch.randn(3, 1, 2, 2, requires_grad=True)
    out = ImagePool(0)(fakes)
    assert torch.equal(out, fakes)
    assert not out.requires_grad


def test_the_pool_fills_first_and_then_exchanges_half() -> None:
    torch.manual_seed(0)
    pool = ImagePool(10)
    for i in range(10):
        assert pool(image(i)).unique().item() == i
    returned = [int(pool(image(i)).unique().item()) for i in range(10, 1010)]
    old = [r for i, r in zip(range(10, 1010), returned, strict=True) if r != i]
    assert 430 < len(old) < 570
    assert len(old) == len(set(old))  # an image that was handed out has left the pool
    assert len(pool.images) == 10


def test_the_pool_is_a_function_of_the_seed_and_its_state() -> None:
    def play(pool: ImagePool) -> list[float]:
        torch.manual_seed(7)
        return [pool(image(i)).unique().item() for i in range(100, 140)]

    first, second = ImagePool(5), ImagePool(5)
    for i in range(5):
        first(image(i))
    second.load_state(first.state(), torch.device("cpu"))
    assert play(first) == play(second)


def test_a_kept_image_is_a_copy_and_finite() -> None:
    pool = ImagePool(1)
    fakes = torch.full((1, 1, 2, 2), float("nan"))
    assert torch.isnan(pool(fakes)).all()
    fakes.fill_(5)
    assert torch.equal(pool.images[0], torch.zeros(1, 2, 2))


def test_processes_agree_on_what_is_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, processes = CycleGAN(CycleGANOptions(ada_target=0.6, ngf=2, ndf=2)), ProcessGroup("cpu")
    step, averaged = TrainingStep(algorithm, TrainingOptions(), processes), []
    monkeypatch.setattr(processes, "average_", averaged.extend)
    monkeypatch.setattr(algorithm, "losses", lambda batch, step: iter(()))
    step(ImagePair(*torch.zeros(2, 1, 3, 8, 8)), 0)
    assert any(tensor is algorithm.adapted()["ada"] for tensor in averaged)
