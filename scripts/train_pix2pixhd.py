"""`i2i train pix2pixhd`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("train", "pix2pixhd")
