"""What `benchmarks.runner` measures, one file per claim. The helpers are those of the tests."""
