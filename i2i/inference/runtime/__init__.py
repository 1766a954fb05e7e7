"""The libraries that run a network: torch, OpenVINO or ONNX Runtime, behind one call (`protocol.Runtime`)."""
