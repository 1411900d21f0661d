"""Where a quantized model loses its answers: step by step, then layer by layer.

parity  how far each step of an export is from the one before, by the scores
layers  the error that each op adds, the error that has gathered there, and what it does to the scores
inside  the values inside a written file, found by their codes, against the simulated ones
render  text for the terminal
"""
