"""Scripts that measure; README.md lists them. A package so that they and the tests can import one another."""
