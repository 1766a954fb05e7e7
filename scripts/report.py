"""`i2i report`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("report")
