"""Looks at data before it is used: is it what the model was trained on, and enough of it?

findings   what a check says: ok, warning or error, with what, why and fix
pictures   what single images are like: dark, bright, constant, noise, grey, small
copies     images that are nearly the same, also between calibration and evaluation
classes    which classes occur, how often, and whether they are numbered as the model's outputs are
probe      whether the model would answer better with other channels, layout or normalization
render     text for the terminal
"""
