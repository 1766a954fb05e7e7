"""`i2i export`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("export")
