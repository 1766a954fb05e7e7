"""`i2i serve`, from a checkout."""

from i2i.cli import main

if __name__ == "__main__":
    main("serve")
