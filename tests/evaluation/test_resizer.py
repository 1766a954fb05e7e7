import numpy as np
import pytest
import torch

from i2i.evaluation.resizer import resized, squared

pytestmark = pytest.mark.arithmetic


def test_the_resizer_is_pillows_bicubic() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).random((40, 60), np.float32) * 2 - 1
    # not the rows and columns at the edge, where Pillow's values outside [-1, 1] would differ from clamped ones
    for height, width in ((13, 20), (80, 90)):
        expected = np.asarray(image.fromarray(pixels).resize((width, height), image.Resampling.BICUBIC)).clip(-1, 1)
        np.testing.assert_allclose(resized(torch.from_numpy(pixels)[None], height, width)[0], expected, atol=1e-5)


def test_squared_takes_the_middle() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 32, 64)
    middle = squared(ramp, 16)
    assert middle.shape == (1, 16, 16)
    assert middle.mean().abs() < 1e-3 and middle.max() < 0.55
    assert squared(ramp[..., :32], 32) is not None and torch.equal(squared(ramp[..., :32], 32), ramp[..., :32])
