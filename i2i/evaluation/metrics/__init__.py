"""The formulas: pairs of pictures, sets of pictures, labels; and the networks in whose features some are measured."""
