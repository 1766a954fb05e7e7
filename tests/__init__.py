"""A package, so that no `tests` of a library is taken for it where processes import the tests again."""
