"""An RTSP server by GStreamer that takes clients over TCP; run by the system's Python: gst_camera.py PORT."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PICTURE = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1"

Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory.set_launch(f"( {PICTURE} ! vp8enc deadline=1 keyframe-max-dist=5 ! rtpvp8pay name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
GLib.MainLoop().run()
