"""One call of a translator: pictures of any kind, one or many, and each comes back as the kind that it was."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from i2i.errors import ImageError, UsageError
from i2i.inference import tensors
from i2i.inference.blend import Blend
from i2i.inference.failures import out_of_memory
from i2i.inference.scaling import Size
from i2i.inference.values import Given, given, is_several, is_tensor, mask_of

if TYPE_CHECKING:
    from i2i.inference.translator import Translator

_NONE_LEFT = object()


class _Work(NamedTuple):
    """A picture, and how its translation is blended with it."""

    one: Given
    blend: Blend


@dataclass(frozen=True)
class Call:
    """Its options: `together` pictures of a list that have one size go through the network together."""

    translator: "Translator"
    size: Size | None
    together: int
    blend: Blend

    def __call__(self, image: Any, mask: Any) -> Any:
        """Returns the translation of `image`, or a list of those of several, which have one mask or a list of them."""
        if is_several(image) and not is_tensor(image):
            return self._several(image, mask)
        return self._one(image, self._with(mask))

    def _with(self, mask: Any) -> Blend:
        if is_several(mask) and not is_tensor(mask):
            raise UsageError("mask: several for one picture or tensor; expected one, or one for each picture of a list")
        return replace(self.blend, mask=mask_of(mask))

    def _one(self, image: Any, blend: Blend) -> Any:
        if is_tensor(image):
            tensors.check_channels(self.translator, image)
            tensors.check_range(image)
            return tensors.translate(self.translator, image, self.size, blend)
        return self._alone(self._work(image, blend))

    def _work(self, image: Any, blend: Blend) -> _Work:
        one = given(image, self.translator.picture_channels, self.translator.info.input_range)
        try:
            blend.check_mask(one.picture.pixels.shape[:2], one.picture.alpha)
        except ImageError as error:
            raise one.explained(error) from None
        return _Work(one, blend)

    def _several(self, images: Iterable[Any], mask: Any) -> list[Any]:
        results: dict[int, Any] = {}
        waiting: dict[tuple[int, int], dict[int, _Work]] = {}

        def finish(group: dict[int, _Work]) -> None:
            results.update(zip(group, self._group(list(group.values())), strict=True))

        for number, (image, blend) in enumerate(self._pairs(images, mask)):
            if is_tensor(image):
                results[number] = self._one(image, blend)
                continue
            work = self._work(image, blend)
            shape = work.one.picture.pixels.shape[:2]
            group = waiting.setdefault(shape, {})
            group[number] = work
            if len(group) == self.together:
                finish(waiting.pop(shape))
        for group in waiting.values():
            finish(group)
        return [results[number] for number in sorted(results)]

    def _pairs(self, images: Iterable[Any], mask: Any) -> Iterator[tuple[Any, Blend]]:
        if not is_several(mask) or is_tensor(mask):
            yield from zip(images, repeat(self._with(mask)), strict=False)
            return
        for image, one in zip_longest(images, mask, fillvalue=_NONE_LEFT):
            if image is _NONE_LEFT or one is _NONE_LEFT:
                raise UsageError("mask: a list of another length than that of the pictures; expected one for each")
            yield image, self._with(one)

    def _group(self, works: list[_Work]) -> list[Any]:
        """Pictures of one size; one by one where they fail together, so that the error names its picture."""
        if len(works) > 1:
            try:
                made = self.translator.translate_batch([work.one.picture for work in works], self.size)
                return [one.returned(blend.of(one.picture, new)) for (one, blend), new in zip(works, made, strict=True)]
            except ImageError:
                pass
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
        return [self._alone(work) for work in works]

    def _alone(self, work: _Work) -> Any:
        one, blend = work
        try:
            return one.returned(self.translator.translate(one.picture, self.size, blend))
        except ImageError as error:
            raise one.explained(error) from None
