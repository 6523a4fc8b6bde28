"""The one way to open an exported network (but for the model that MLflow stores, which needs nothing of ours)."""

from pathlib import Path

import onnxruntime


def open_network(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session on the CPU.

    Args:
        path: the ONNX file.
        threads: how many take part in a pass, 0: as many as there are cores. A pass of a few images is over before a
            second thread has woken up.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
