"""Training on the captured graph: to answer as a teacher does, with few labels or none.

`views` makes augmented batches, `teacher` answers them once, `losses` compares, `loop` trains, `checkpoints` keeps
what was done. What is trained is given by the caller, in float or rounded to 8 bits.
"""

from shrink.tune.loop import Fitted, Training
from shrink.tune.settings import Settings

__all__ = ["Fitted", "Settings", "Training"]
