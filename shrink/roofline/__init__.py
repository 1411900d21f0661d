"""Latency without the board: fitted on published figures, and always with its error."""
