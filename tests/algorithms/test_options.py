"""Options of networks and of the adversarial loss: what contradicts what, and their ranges."""

from typing import Any

import pytest

from i2i.algorithms import CycleGAN
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Segmentation, SegmentationOptions
from i2i.config import from_mapping
from i2i.errors import UsageError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gan_mode": "hinge", "label_smoothing": 0.1}, r"label_smoothing = 0\.1: gan_mode = 'hinge' has no labels"),
        ({"gan_mode": "relativistic", "label_smoothing": 0.1}, "has no labels"),
        ({"gan_mode": "wgangp", "ada_target": 0.6}, "only differences of logits count"),
        ({"gan_mode": "relativistic", "ada_target": 0.6}, "only differences of logits count"),
        ({"diffaugment": "color", "ada_target": 0.6}, "leave out diffaugment = 'color'"),
        ({"lambda_gp": 1.0}, r"lambda_gp = 1\.0: changes nothing without gan_mode wgangp"),
        ({"instance_noise_steps": 9}, "instance_noise_steps = 9: changes nothing without instance_noise"),
        ({"ada_images": 9}, "ada_images = 9: changes nothing without ada_target"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        CycleGAN(CycleGANOptions(ngf=2, ndf=2, **options))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("label_smoothing", 0.5), ("instance_noise", -0.1), ("instance_noise_steps", 0), ("ada_target", 1.0)),
        *(("ada_images", 0), ("r1_gamma", -1), ("r2_gamma", -1)),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{name} = .*allowed"):
        from_mapping(CycleGANOptions, {name: value})


def test_segmentation_without_a_discriminator_takes_no_options_of_one() -> None:
    for name, value in {"diffaugment": "color", "r1_gamma": 1.0, "instance_noise": 0.1, "gan_mode": "hinge"}.items():
        with pytest.raises(UsageError, match=f"{name} = .* changes nothing without lambda_gan"):
            Segmentation(SegmentationOptions(lambda_gan=0.0, **{name: value}))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing would be learnt"):
        Segmentation(SegmentationOptions(lambda_gan=0.0, lambda_CE=0.0))
