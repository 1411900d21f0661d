"""What measuring on boards promises, measured: one module per row."""
