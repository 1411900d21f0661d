"""shrink: makes a trained image model small, writes it for the device, and proves what that cost."""

__version__ = "0.1.0"
