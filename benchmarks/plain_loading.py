"""The plain way to load pictures for training: what our loader is compared with.

As the published code orders it: Pillow opens the file and converts it to RGB, bicubic to 286 x 286, a random crop
of 256 x 256, flipped half the time, to a tensor, to [-1, 1]; one picture after the other, in this process.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode


class PlainPictures(Dataset[Tensor]):
    """(3, 256, 256) float32 in [-1, 1] of each file."""

    def __init__(self, paths: Sequence[Path], load_size: int = 286, crop_size: int = 256) -> None:
        self.paths = list(paths)
        self.transform = transforms.Compose(
            [
                transforms.Resize((load_size, load_size), InterpolationMode.BICUBIC),
                transforms.RandomCrop(crop_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.open(self.paths[index])  # noqa: TID251 - this is the plain way
        tensor: Tensor = self.transform(picture.convert("RGB"))
        return tensor


def plain_batches(paths: Sequence[Path]) -> DataLoader[Tensor]:
    """One epoch of single pictures in random order."""
    return DataLoader(PlainPictures(paths), batch_size=1, shuffle=True, num_workers=0)
