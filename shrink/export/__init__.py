"""Printers of one quantized graph: TFLite and ONNX, and the bundle around them."""
