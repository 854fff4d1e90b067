"""Pre-flight connectivity checks for Kubernetes clusters, proven from both ends."""

__version__ = "0.1.0"
