"""How the pictures in this folder were written: once, with pillow-heif 1.8.1, which i2i does not need.

python tests/images/heic/make.py
"""

import numpy as np
from heic_samples import HERE, alpha, ramp
from PIL import Image, ImageCms


def main() -> None:
    import pillow_heif  # type: ignore[import-not-found]

    def write(name: str, mode: str, pixels: object, **options: object) -> None:
        data = np.ascontiguousarray(pixels)
        image = pillow_heif.from_bytes(mode=mode, size=data.shape[1::-1], data=data.tobytes())
        image.save(HERE / name, quality=90, chroma=444, **options)

    pixels = ramp()
    write("colours.heic", "RGB", pixels)
    write("alpha.heic", "RGBA", np.dstack([pixels, alpha()]))
    write("grey.heic", "L", pixels[..., 0])
    write("ten_bits.heic", "RGB;16", pixels.astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274], exif[33432] = 6, "somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(
        HERE / "turned.heic", quality=90, chroma=444, exif=exif.tobytes(), icc_profile=profile, xmp=xmp
    )
    two = pillow_heif.HeifFile()
    for picture in (pixels, pixels[::-1].copy()):
        two.add_frombytes(mode="RGB", size=(48, 32), data=picture.tobytes())
    two.save(HERE / "two.heic", quality=90, chroma=444)


if __name__ == "__main__":
    main()
