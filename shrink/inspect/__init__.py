"""Says what a .tflite or .onnx file really is: read from its bytes and from the runtime that loads it.

kind        which format a file has, by its first bytes
flatbuffer  .tflite bytes -> tables          tflite   tables -> records
partitions  what XNNPACK took                onnx, ort  the same for .onnx, from the graph the runtime made
truth       records -> truth label           old_runtime  which op stops tflite-runtime 2.14
guard       the same in a child process, for files nobody vouches for
render      text for the terminal
"""
