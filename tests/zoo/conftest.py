"""These tests run where the model zoo keeps its bundles: tests/e2e/test_exported_bundle.py takes them there."""

collect_ignore_glob = ["test_*.py"]
