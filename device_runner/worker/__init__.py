"""The model at work: in a process of its own, which may hang or die alone, or inline on tiny boards."""
