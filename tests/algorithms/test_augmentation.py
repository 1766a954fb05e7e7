"""Augmentation of what a discriminator sees: each operation against NumPy, with the parameters that were drawn."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from i2i.algorithms import augmentation
from i2i.algorithms.augmentation import OPERATIONS, DiffAugment
from i2i.algorithms.cyclegan import CycleGAN, CycleGANOptions
from i2i.algorithms.pix2pix import Pix2Pix, Pix2PixOptions
from i2i.config import from_mapping
from i2i.data.pair import ImagePair
from i2i.errors import UsageError

pytestmark = pytest.mark.arithmetic

ALL = ",".join(OPERATIONS)
SMALL: dict[str, Any] = {"ngf": 4, "ndf": 4, "discriminator": "patchgan_16", "generator": "resnet_1blocks"}


def images(count: int = 5, height: int = 24, width: int = 37, channels: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def pair(size: int = 2) -> ImagePair:
    return ImagePair(images(size, 32, 32).float(), images(size, 32, 32, seed=2).float())


# Each operation against an independent computation


def moved(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    made = np.zeros_like(picture)
    _, height, width = picture.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                made[:, y, x] = picture[:, y - down, x - right]
    return made


def cut(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    made = picture.copy()
    _, height, width = picture.shape
    y, x = np.mgrid[:height, :width]
    inside = (y >= top) & (y < top + -(-height // 2)) & (x >= left) & (x < left + -(-width // 2))
    made[:, inside] = 0
    return made


def recoloured(picture: np.ndarray, brightness: float, saturation: float, contrast: float) -> np.ndarray:
    picture = picture + brightness
    grey = picture.mean(axis=0)
    picture = grey + (picture - grey) * saturation
    return picture.mean() + (picture - picture.mean()) * contrast


def test_colours_are_their_formula() -> None:
    torch.manual_seed(3)
    drawn = [values.tolist() for values in augmentation.draw_colours(5)]
    torch.manual_seed(3)
    made = DiffAugment("color")(images())
    for i, picture in enumerate(images().numpy()):
        expected = recoloured(picture, *(values[i] for values in drawn))
        np.testing.assert_allclose(made[i].numpy(), expected, atol=1e-12)
    assert made.abs().max() > 1, "colours leave the range, and are not clamped"
    assert len({values[0] for values in drawn} | set(drawn[0])) == 7, "each drawn by itself"


@pytest.mark.parametrize(
    ("names", "kept"), [("brightness", {0}), ("saturation", {1}), ("contrast", {2}), ("contrast,brightness", {0, 2})]
)
def test_each_of_the_colours_is_had_alone(names: str, kept: set[int]) -> None:
    torch.manual_seed(3)
    drawn = [values.tolist() for values in augmentation.draw_colours(5)]
    torch.manual_seed(3)
    made = DiffAugment(names)(images())
    for i, picture in enumerate(images().numpy()):
        factors = [values[i] if k in kept else (0, 1, 1)[k] for k, values in enumerate(drawn)]
        np.testing.assert_allclose(made[i].numpy(), recoloured(picture, *factors), atol=1e-12)


def test_translation_moves_whole_pixels() -> None:
    torch.manual_seed(3)
    shifts = augmentation.draw_shifts(5, 24, 37)
    torch.manual_seed(3)
    made = DiffAugment("translation")(images())
    for i, picture in enumerate(images().numpy()):
        np.testing.assert_array_equal(made[i].numpy(), moved(picture, *shifts[i]))
    assert len(set(shifts)) == 5


@pytest.mark.parametrize(("height", "width"), [(24, 37), (7, 2)])
def test_cutout_takes_half_of_each_side(height: int, width: int) -> None:
    torch.manual_seed(3)
    corners = augmentation.draw_corners(5, height, width)
    torch.manual_seed(3)
    made = DiffAugment("cutout")(images(5, height, width))
    for i, picture in enumerate(images(5, height, width).numpy()):
        np.testing.assert_array_equal(made[i].numpy(), cut(picture, *corners[i]))
    assert len(set(corners)) > 1


def test_together_they_are_done_in_the_order_of_the_paper() -> None:
    torch.manual_seed(3)
    colours = [values.tolist() for values in augmentation.draw_colours(5)]
    shifts, corners = augmentation.draw_shifts(5, 24, 37), augmentation.draw_corners(5, 24, 37)
    torch.manual_seed(3)
    made = DiffAugment(" cutout, translation,color")(images())
    for i, picture in enumerate(images().numpy()):
        expected = cut(moved(recoloured(picture, *(values[i] for values in colours)), *shifts[i]), *corners[i])
        np.testing.assert_allclose(made[i].numpy(), expected, atol=1e-12)


def test_what_is_drawn_fills_its_range_evenly() -> None:
    torch.manual_seed(0)
    for values, (least, most) in zip(augmentation.draw_colours(4000), [(-0.5, 0.5), (0, 2), (0.5, 1.5)], strict=True):
        assert least <= values.min() < least + 0.01 and most - 0.01 < values.max() <= most
        assert values.mean().item() == pytest.approx((least + most) / 2, abs=0.05)
    rows, columns = zip(*augmentation.draw_shifts(4000, 32, 20), strict=True)
    assert (set(rows), set(columns)) == (set(range(-4, 5)), set(range(-3, 4)))  # 20 / 8 rounds to 3
    rows, columns = zip(*augmentation.draw_corners(4000, 8, 5), strict=True)
    assert set(rows) == set(range(-2, 7)), "a box of 4 about an edge between pixels: the middle in 0..8"
    assert set(columns) == set(range(-1, 4)), "a box of 3 about a pixel: the middle in 0..4"
    assert np.mean(rows) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(channels: int) -> None:
    assert DiffAugment(ALL)(images(channels=channels)).shape == images(channels=channels).shape


def test_one_pixel() -> None:
    assert DiffAugment(ALL)(images(2, 1, 1)).shape == (2, 3, 1, 1)


def test_sixteen_bits_are_recoloured_in_float32() -> None:
    coarse = images().bfloat16()
    torch.manual_seed(3)
    made = DiffAugment("color")(coarse)
    torch.manual_seed(3)
    assert torch.equal(made, DiffAugment("color")(coarse.float()))


def test_a_value_that_is_not_finite_is_not_hidden() -> None:
    """Or a step that diverged would not be skipped."""
    assert DiffAugment("cutout")(torch.full((1, 1, 4, 4), torch.nan)).isnan().all()


# Pairs


def test_both_images_of_a_pair_are_moved_and_cut_alike() -> None:
    made = DiffAugment("translation,cutout")(images(), condition=images())
    assert torch.equal(made[:, :3], made[:, 3:])
    assert not torch.equal(made[:, :3], images())


def test_the_condition_keeps_its_colours() -> None:
    made = DiffAugment("color")(images(), condition=images(channels=2, seed=2))
    assert torch.equal(made[:, :2], images(channels=2, seed=2))
    torch.manual_seed(3)
    made = DiffAugment(ALL)(images(), condition=images(channels=2, seed=2))
    torch.manual_seed(3)
    assert torch.equal(made[:, 2:], DiffAugment(ALL)(images())), "the images are as they were alone"


# Gradients


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_those_of_the_operation(operation: str) -> None:
    """Against differences; seeded, so that every call draws the same."""

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return DiffAugment(operation)(x)

    assert torch.autograd.gradcheck(seeded, images(2, 4, 5).requires_grad_())


@pytest.mark.parametrize("operation", [*OPERATIONS, ALL])
@pytest.mark.parametrize("kind", [CycleGAN, Pix2Pix])
def test_adversarial_gradients_reach_the_generator(kind: Any, operation: str) -> None:
    options = {CycleGAN: CycleGANOptions, Pix2Pix: Pix2PixOptions}[kind]
    torch.manual_seed(0)
    algorithm = kind(options(**SMALL, diffaugment=operation))
    for player, losses in algorithm.losses(pair(), 0):
        if player == "generator" and losses.adversarial:
            sum(losses[name] for name in losses.adversarial).backward()
    for network in algorithm.translators().values():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert any(p.grad.any() for p in network.parameters())


# Off, and what is refused


@pytest.mark.parametrize("names", ["", "  "])
def test_off_does_nothing_and_draws_nothing(names: str) -> None:
    before, x, a = torch.get_rng_state(), images(), images(seed=2)
    assert DiffAugment(names)(x) is x
    assert torch.equal(DiffAugment(names)(x, condition=a), torch.cat([a, x], dim=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [CycleGAN, Pix2Pix])
def test_off_a_step_draws_nothing(kind: Any) -> None:
    """With no dropout and no history, a step is then free of chance."""
    if kind is CycleGAN:
        algorithm: Any = CycleGAN(CycleGANOptions(**SMALL, pool_size=0))
    else:
        algorithm = Pix2Pix(Pix2PixOptions(**SMALL, dropout=False))
    before = torch.get_rng_state()
    first = [{k: float(v.detach()) for k, v in losses.items()} for _, losses in algorithm.losses(pair(), 0)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    assert first == [{k: float(v.detach()) for k, v in losses.items()} for _, losses in algorithm.losses(pair(), 0)]


@pytest.mark.parametrize("names", ["colour", "color,,cutout", "color;cutout", "Color", "flip"])
def test_unknown_names_are_refused(names: str) -> None:
    with pytest.raises(UsageError, match="Known: color, brightness, saturation, contrast, translation, cutout"):
        DiffAugment(names)
    with pytest.raises(UsageError, match=r"run\.yaml: diffaugment = .*unknown augmentation"):
        from_mapping(CycleGANOptions, {"diffaugment": names}, "run.yaml")


def test_a_near_miss_is_helped() -> None:
    with pytest.raises(UsageError, match=r"'colour'\. Did you mean 'color'"):
        from_mapping(Pix2PixOptions, {"diffaugment": "cutout, colour"})


# Past fakes
