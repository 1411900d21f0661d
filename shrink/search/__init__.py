"""The smallest model that keeps its promise: many recipes are tried, and the limits are the user's.

`space` says what may be varied, `goal` what is promised, `workbench` makes and measures one point, `study` holds what
all workers have found, `work` is the loop of one worker, `front` what came out of it, `draw` a picture of that.
"""
