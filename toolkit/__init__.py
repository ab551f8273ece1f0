"""inception-deploy: branchy CNNs from PyTorch to verified, compiled bundles."""

from __future__ import annotations

__version__ = "0.1.0"
