"""Where a quantized model loses its answers: step by step, then layer by layer.

parity  how far each step of an export is from the one before, by the scores
layers  the error that each op adds, the error that has gathered there, and what it does to the scores
render  text for the terminal
"""
