"""`i2i doctor`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("doctor")
