"""What the runner is told to do: its parts, what they must be to each other, and the reader."""
