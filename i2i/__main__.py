"""`python -m i2i`: the same as the command `i2i`."""

from i2i.cli import main

if __name__ == "__main__":
    main()
