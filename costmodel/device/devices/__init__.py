"""Device profiles: one JSON file a device, each figure in SI units with its source (tests/test_device_files.py)."""
