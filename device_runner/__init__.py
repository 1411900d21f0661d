"""Serves a shrink bundle on a device. Imports nothing of shrink and no training framework."""

__version__ = "0.1.0"
