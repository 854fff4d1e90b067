"""What runs on every node: holds ports and probes, for one coordinator at a time."""
