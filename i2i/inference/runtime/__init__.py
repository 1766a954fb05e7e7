"""What runs a network: torch, OpenVINO or ONNX Runtime, behind one call (`protocol.Runtime`)."""
