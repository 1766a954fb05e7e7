"""Augmentation of what a discriminator sees: each operation against NumPy, with the parameters that were drawn; noise;
ADA."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from i2i.algorithms import augmentation
from i2i.algorithms.augmentation import ADA, OPERATIONS, DiffAugment
from i2i.algorithms.cyclegan import CycleGAN, CycleGANOptions
from i2i.algorithms.options import NetworkOptions
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


def certain(p: float) -> ADA:
    made = ADA(0.6, 1000)
    made.adapted[0] = p
    return made


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


@pytest.mark.parametrize("size", [(1, 24, 37), (2, 24, 37), (4, 24, 37), (3, 1, 1)])
def test_any_number_of_channels_and_pixels(size: tuple[int, int, int]) -> None:
    channels, height, width = size
    assert DiffAugment(ALL)(images(2, height, width, channels)).shape == (2, *size)


@pytest.mark.parametrize("augment", [DiffAugment("color"), partial(certain(0.5), step=0)])
def test_sixteen_bits_are_augmented_in_float32(augment: Any) -> None:
    coarse = images().bfloat16()
    torch.manual_seed(3)
    made = augment(coarse)
    torch.manual_seed(3)
    assert torch.equal(made, augment(coarse.float()))


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


@pytest.mark.parametrize("kind", [CycleGAN, Pix2Pix])
def test_adversarial_gradients_reach_the_generator(kind: Any) -> None:
    options = {CycleGAN: CycleGANOptions, Pix2Pix: Pix2PixOptions}[kind]
    torch.manual_seed(0)
    algorithm = kind(options(**SMALL, diffaugment=ALL))
    for player, losses in algorithm.losses(pair(), 0):
        if player == "generator" and losses.adversarial:
            sum(losses[name] for name in losses.adversarial).backward()
    for network in algorithm.translators().values():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert any(p.grad.any() for p in network.parameters())


# Off, and what is refused


def test_off_nothing_is_done_or_drawn() -> None:
    """With no dropout and no history, a step is then free of chance."""
    options = Pix2PixOptions(**SMALL, dropout=False, diffaugment=" ", ada_target=0.0, instance_noise=0.0)
    algorithm, x, a = Pix2Pix(options), images(), images(seed=2)
    before = torch.get_rng_state()
    assert DiffAugment(" ")(x) is algorithm.augment(x, 0) is x
    for augment in (DiffAugment(" "), partial(algorithm.augment, step=0)):
        assert torch.equal(augment(x, condition=a), torch.cat([a, x], dim=1))  # type: ignore[operator]
    assert algorithm.augmentation is None and algorithm.adapted() == {}
    for _ in algorithm.losses(pair(), 0):
        pass
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("names", ["cutout, colour", "color,,cutout", "color;cutout", "Color", "flip"])
def test_unknown_names_are_refused(names: str) -> None:
    known = "Known: color, brightness, saturation, contrast, translation, cutout"
    near = r"'colour'\. Did you mean 'color'\? " if "colour" in names else ""
    with pytest.raises(UsageError, match=rf"run\.yaml: diffaugment = .*unknown augmentation .*{near}{known}"):
        from_mapping(CycleGANOptions, {"diffaugment": names}, "run.yaml")


# Instance noise


def test_noise_falls_to_nothing() -> None:
    augment = NetworkOptions(instance_noise=0.2, instance_noise_steps=1000).augmentation()
    assert augment
    x = torch.zeros(16, 3, 64, 64)
    for step, deviation in ((0, 0.2), (250, 0.15), (999, 0.0002)):
        shown = augment(x, step)
        assert shown.std().item() == pytest.approx(deviation, rel=0.02)
        assert abs(shown.mean().item()) < 0.01 * deviation
    assert augment(x, 1000) is x and augment(x, 5000) is x


def test_noise_leaves_a_condition_alone() -> None:
    augment = NetworkOptions(instance_noise=0.2).augmentation()
    assert augment
    shown = augment(images(), 0, condition=images(channels=2, seed=2))
    assert torch.equal(shown[:, :2], images(channels=2, seed=2))
    assert bool((shown[:, 2:] != images()).any(dim=(2, 3)).all())
    assert not torch.equal(shown[0, 2:] - images()[0], shown[1, 2:] - images()[1])


# ADA


def test_no_picture_is_changed_at_first() -> None:
    assert torch.equal(certain(0.0)(images(), 0), images())


@pytest.mark.parametrize(("height", "width", "turns"), [(6, 6, (0, 1, 2, 3)), (6, 8, (0, 2))])
def test_pictures_are_mirrored_and_turned_by_quarters(
    height: int, width: int, turns: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With certainty each, of which mirroring and no turn leave the picture as it is in their turn."""
    monkeypatch.setattr(augmentation, "recolour", lambda images, *_: images)
    monkeypatch.setattr(augmentation, "translate", lambda images, *_: images)
    torch.manual_seed(0)
    picture = images(1, height, width)[0].numpy()
    shown = certain(1.0)(torch.from_numpy(picture).expand(200, -1, -1, -1), 0)
    ways = [np.rot90(p, k, (1, 2)) for p in (picture, picture[:, :, ::-1]) for k in turns]
    counts = [sum(np.array_equal(way, made) for made in shown.numpy()) for way in ways]
    assert sum(counts) == 200
    assert min(counts) > 0.5 * 200 / len(ways)


def test_each_operation_comes_with_the_probability() -> None:
    torch.manual_seed(0)
    changed = [0, 0]
    for target, probability in ((0, 0.25), (1, 1.0)):
        picture = images(1, width=24)
        shown = certain(probability)(picture.expand(2000, -1, -1, -1), 0)
        changed[target] = int((shown != picture).any(dim=3).any(dim=2).any(dim=1).sum())
    unchanged = 0.75 * 0.875 * (1 - 0.25 * 0.75) * (1 - 0.25 * 48 / 49)  # colour, mirror, turn, shift of 24 pixels by 3
    assert changed[0] / 2000 == pytest.approx(1 - unchanged, abs=0.04)
    assert changed[1] == 2000


def test_a_condition_moves_with_its_picture_in_its_own_colours() -> None:
    shown = certain(1.0)(images(), 0, condition=images())
    moved = shown[:, :3]
    assert not torch.equal(moved, images()) and not torch.equal(moved, shown[:, 3:])
    assert bool(torch.isin(moved[moved != 0], images()).all()), "moved only"


@pytest.mark.parametrize(("decision_boundary", "signs"), [(0.0, 0.5), (0.5, 0.0)])
def test_the_probability_follows_the_signs(
    decision_boundary: float, signs: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of n / `pictures` after n pictures, up above the target and down below, between 0 and 1."""
    monkeypatch.setattr(augmentation, "PICTURES", 8)
    logits = torch.tensor([0.7, 0.9, 0.2, -0.3]).expand(4, 4)[:, :, None]
    augmented, x = ADA(0.25, 32, decision_boundary), images(1)
    expected = 0.0
    for step in range(8):
        augmented(x, step)
        assert float(augmented.adapted[0]) == pytest.approx(min(1.0, max(0.0, expected)), abs=1e-6)
        augmented.observe(logits)
        augmented(x, step)  # another turn of the same step
        augmented.observe(logits)
        assert float(augmented.adapted[1]) == pytest.approx(8 * signs, abs=1e-6)
        expected += 8 / 32 if signs > 0.25 else -8 / 32


def test_the_probability_does_not_move_within_a_step_nor_before_its_time() -> None:
    augmented, x = ADA(0.6, 1000), images(1)
    for step in range(3):
        for _ in range(5):
            augmented(x, step)
            augmented.observe(torch.ones(16, 1, 2, 2))
    augmented(x, 3)
    assert augmented.adapted.tolist() == [0, 240, 240], "16 pictures five times, in three steps"
    augmented.observe(torch.ones(16, 1)), augmented(x, 3)
    assert augmented.adapted.tolist() == [0, 256, 256]
    augmented(x, 4)
    assert augmented.adapted.tolist() == pytest.approx([0.256, 0, 0])


def test_values_that_are_not_finite_do_not_stay() -> None:
    augmented = ADA(0.6, 1000)
    augmented.observe(torch.full((4, 1), torch.nan))
    assert augmented.adapted.tolist() == [0, 0, 4]
