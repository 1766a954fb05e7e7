"""`i2i train colorization`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("train", "colorization")
