"""The libraries that run a network: the interface of all, and OpenVINO and ONNX Runtime on a CPU.

Only a conversion needs torch, and its result is kept in the cache folder: one file, named by the hash of all that the
conversion follows from, and written whole or not at all, as several processes may write it at once. A file that is
damaged or of another version counts as absent.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from safetensors.numpy import load, save

from i2i.errors import I2IError, ModelError, UsageError
from i2i.files import atomic_write, home, remove_strays, sha256
from i2i.inference.options import ModelOptions
from i2i.machine import Session, threads
from i2i.models.info import CONFIG_NAME, WEIGHTS_NAME, ModelInfo, parse, to_json
from i2i.models.metadata import body_sha256, read_header, regular_file

if TYPE_CHECKING:
    import torch
    from torch import nn

Planes = np.ndarray[Any, np.dtype[np.float32]]
"""(N, C, H, W) float32 in [-1, 1]."""
Chosen = Literal["torch", "openvino", "onnx"]


@dataclass(frozen=True)
class Cpu:
    """The CPU, for a runtime that does without torch: as much of a `torch.device` as is needed."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


Device: TypeAlias = "Cpu | torch.device"


class Runtime(Protocol):
    """A network, ready to run. Several threads may call it; `precision` is fp32, bf16 or fp16."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> Device: ...

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        """(N, in, H, W) to (N, out, H, W), H and W as the network takes them; `seed` is that of its noise."""
        ...


@dataclass(frozen=True)
class InputSpec:
    """The sizes and channels that a network takes, and its memory for each pixel (`loaded_model.bytes_per_pixel`).

    That takes half a second to compute, so it may be None: not computed yet.
    """

    in_channels: int
    out_channels: int
    size_multiple: int
    minimum_size: int
    bytes_per_pixel: float | None


@dataclass(frozen=True)
class ConvertedModel:
    """A network in the format of another runtime: its `files` by name."""

    info: ModelInfo
    spec: InputSpec
    files: dict[str, bytes]


class ConvertedRuntime(Session):
    """A converted network on the CPU; sizes are free."""

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, converted: ConvertedModel, precision: str = "fp32") -> None:
        super().__init__()
        self.device, self.precision, self.files = Cpu(), precision, self.taken(converted.files)
        self.held  # noqa: B018 - what cannot be read is noticed now

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("device", "precision", "files")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state)

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        try:
            return self.computed(batch)
        except Exception as error:  # `Fail` of ONNX Runtime is nothing but an `Exception`
            if "alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise

    def computed(self, batch: Planes) -> Planes:
        raise NotImplementedError

    @staticmethod
    def taken(files: dict[str, bytes]) -> dict[str, Any]:
        """The files of a conversion as the library takes them."""
        return files

    @staticmethod
    def version() -> str:
        """The version of the library, on which a conversion depends."""
        raise NotImplementedError

    @staticmethod
    def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
        """The files of `network`, which is in its mode of translation; `side` is a height and width that it takes.

        Raises what torch or the library raise for what they cannot convert.
        """
        raise NotImplementedError


class _Core(Session):
    """The one core of OpenVINO in a process, which stays to its end.

    A core gives the thread that makes it a stack for signals, and frees that stack when it ends. The thread goes on
    using it if another thread, or a core that was made later, came between; the next signal then ends the process.
    """

    def start(self) -> Any:
        import openvino

        return openvino.Core()


_CORE = _Core()
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_KERNELS = 64
"""How many compiled kernels are kept for sizes of pictures other than the last: each takes memory, and saves little."""


class OpenVINORuntime(ConvertedRuntime):
    name, title, package = "openvino", "OpenVINO", "openvino"

    @staticmethod
    def version() -> str:
        from openvino import __version__

        return str(__version__)

    @staticmethod
    def taken(files: dict[str, bytes]) -> dict[str, Any]:
        return {"xml": files["xml"].decode(), "bin": np.frombuffer(files["bin"], np.uint8).copy()}

    def start(self) -> Any:
        if not os.access(".", os.X_OK):  # OpenVINO would end the process
            raise UsageError("the current folder may not be searched, which OpenVINO has to: go to another one")
        import openvino

        with _CORE.alone:
            core = _CORE.held
        # shared: the compiled network goes on using this memory, which lives as long as this object
        weights = openvino.Tensor(self.files["bin"], shared_memory=True)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],  # unless told it takes bf16 where the processor has it
            "INFERENCE_NUM_THREADS": threads(),
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        }
        model = core.read_model(self.files["xml"], weights)
        return core.compile_model(model, "CPU", options).create_infer_request()

    def computed(self, batch: Planes) -> Planes:
        with self.alone:
            results = self.held.infer([np.ascontiguousarray(batch)], share_inputs=True, share_outputs=True)
            return np.array(results[0], np.float32)

    @staticmethod
    def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
        import openvino
        import torch

        from i2i.acceleration import accelerate, shared_copy

        # OpenVINO has its own instance norm, and as group norm it would lay out every tensor anew (docs/lab-book.md)
        example = torch.zeros(1, channels, side, side)
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's, about Python values that are constant here
            exported = accelerate(shared_copy(network.cpu()), "inference", engine="exported")
            traced = torch.jit.trace(exported, example, check_trace=False)
            model = openvino.convert_model(traced, example_input=example)
        model.reshape([-1, channels, -1, -1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return {"xml": path.read_bytes(), "bin": path.with_suffix(".bin").read_bytes()}


def silent_onnxruntime() -> Any:
    """ONNX Runtime, told once more to report to nobody: it may have been imported before i2i."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxRuntime(ConvertedRuntime):
    name, title, package = "onnx", "ONNX Runtime", "onnxruntime"

    @staticmethod
    def version() -> str:
        return str(silent_onnxruntime().__version__)

    def start(self) -> Any:
        onnxruntime = silent_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # it plans for pictures of one size
        options.enable_cpu_mem_arena = False  # it grows by doubling, and gives nothing back
        return onnxruntime.InferenceSession(self.files["onnx"], options, providers=["CPUExecutionProvider"])

    def computed(self, batch: Planes) -> Planes:
        with self.alone:
            session = self.held
        result: Planes = session.run(None, {session.get_inputs()[0].name: batch})[0]
        return result

    @staticmethod
    def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
        from i2i.inference.torch_runtime import onnx_bytes

        return {"onnx": onnx_bytes(network, channels, side)}


CONVERTED: dict[str, type[ConvertedRuntime]] = {kind.name: kind for kind in (OpenVINORuntime, OnnxRuntime)}

VERSION = 3
"""The version of conversion and storage. Every change that makes kept conversions wrong raises it."""
MAX_BYTES = 4 << 30
"""The limit of all conversions together. Those that were not used for the longest time go first."""
_STRAY_SECONDS = 3600
_CONVERTED = "converted"


def content_key(path: Path, runtime: str, options: ModelOptions) -> str | None:
    """A name for the content of the model at `path` as it is now, and for how it is used; None if it cannot be read."""
    files = [path / CONFIG_NAME, path / WEIGHTS_NAME] if path.is_dir() else [path]
    try:
        for file in files:
            regular_file(file)
        digests = [sha256(file) for file in files]
    except (OSError, ModelError):
        return None
    used = {"direction": options.direction, "dropout": options.dropout, "norm_stats": options.norm_stats}
    version = CONVERTED[runtime].version() if runtime in CONVERTED else ""
    facts = [VERSION, runtime, version, sorted((name, str(value)) for name, value in used.items()), digests]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def kept_conversion(key: str) -> ConvertedModel | None:
    """The conversion that is kept under `key`, if it is there and whole."""
    path = home() / _CONVERTED / f"{key}.safetensors"
    try:
        regular_file(path)  # a pipe would block
        data = path.read_bytes()
        if read_header(path)[0].get("sha256") != body_sha256(data):
            return None
        files = {file: array.tobytes() for file, array in load(data).items()}
        facts = json.loads(files.pop("facts"))
        converted = ConvertedModel(parse(files.pop("info"))[0], InputSpec(**facts), files)
    except Exception:  # whatever a reader makes of damaged bytes
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use
    return converted


def keep_conversion(key: str, converted: ConvertedModel) -> None:
    """Keeps a conversion, if the disk allows; those that were not used for long make room."""
    facts, info = json.dumps(asdict(converted.spec)).encode(), to_json(converted.info, "").encode()
    parts: Mapping[str, bytes] = {**converted.files, "facts": facts, "info": info}
    arrays = {part: np.frombuffer(data, np.uint8) for part, data in parts.items()}
    data = save(arrays, {"sha256": body_sha256(save(arrays))})
    folder, total = home() / _CONVERTED, 0
    with contextlib.suppress(OSError, I2IError):
        folder.mkdir(parents=True, exist_ok=True)
        remove_strays(folder, time.time() - _STRAY_SECONDS)
        atomic_write(folder / f"{key}.safetensors", lambda file: file.write(data))
        entries = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        for number, path in enumerate(entries):
            total += path.stat().st_size
            if number and total > MAX_BYTES:
                path.unlink()
