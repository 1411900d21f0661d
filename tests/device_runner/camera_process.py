"""The HTTP camera in a process of its own, which can be stopped or killed: camera_process.py HOST PORT."""

import sys
import threading

from camera import Camera
from runner_bundles import photo

Camera([photo(i) for i in range(4)], (sys.argv[1], int(sys.argv[2])))
threading.Event().wait()
