"""Files that want to run code: refused wherever weights come in, with exit code 5, and nothing has run."""

import hashlib
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fork_server import python
from pickles import Calls
from torch.serialization import MAGIC_NUMBER

from i2i.algorithms import CycleGAN
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.errors import ModelError
from i2i.models import model_file, state_dicts
from i2i.models.junyanz import listing
from i2i.models.model_file import open_model
from i2i.networks.resnet import ResnetConfig
from i2i.training.launch import initialise
from i2i.training.state_store import StateStore


def saved(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def exported_program(evil: bytes) -> bytes:
    """The layout of a `.pt2`, whose parts `torch.export.load` unpickles."""
    names = ["archive_format", "models/model.json", "data/weights/model.pt", "data/constants/model.pt"]
    return archive(**{f"model/{name}": evil if name.endswith(".pt") else b"pt2" for name in names})


def script(_: Calls) -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    return file.getvalue()


RUNS_CODE: dict[str, Callable[[Calls], bytes]] = {
    "pickle": lambda evil: pickle.dumps({"model.1.weight": evil}),
    "newest pickle": lambda evil: pickle.dumps({"model.1.weight": evil}, protocol=5),
    "zip": lambda evil: saved({"model.1.weight": evil}),
    "legacy": lambda evil: saved({"model.1.weight": evil}, zipped=False),
    "through an allowed class": lambda evil: saved(Calls(OrderedDict, [("model.1.weight", evil)])),
    "legacy with a zip behind": lambda evil: saved({"model.1.weight": evil}, zipped=False) + archive(a=b""),
    "exported program": lambda evil: exported_program(saved({"model.1.weight": evil})),
    "nested zip": lambda evil: archive(**{"archive/data.pkl": saved({"model.1.weight": evil})}),
    "pickle in a zip": lambda evil: archive(**{"archive/data.pkl": pickle.dumps(evil), "archive/version": b"3"}),
    "torchscript": script,
}
LARGE = ResnetConfig(width=256, blocks=20)  # 1.5 GB


def large(made: Callable[[tuple[int, ...]], Any], zipped: bool = True) -> bytes:
    """All keys of a large network; what `made` makes stands for its large tensors."""
    shapes = {name: shape for name, (_, shape) in listing(LARGE).items()}
    return saved(
        {n: made(shape) if math.prod(shape) > 1 << 16 else torch.zeros(shape) for n, shape in shapes.items()}, zipped
    )


def over_a_new_storage(rebuild: Callable[..., Any]) -> Callable[[tuple[int, ...]], Any]:
    def tensor(shape: tuple[int, ...]) -> Calls:
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        more = (False, OrderedDict()) if rebuild is torch._utils._rebuild_tensor_v2 else ()
        return Calls(rebuild, Calls(torch.storage.TypedStorage, math.prod(shape)), 0, shape, strides, *more)

    return tensor


def zipped(operations: bytes) -> bytes:
    """A file of torch with a pickle of these operations."""
    return archive(**{"archive/data.pkl": b"\x80\x02" + operations + b".", "archive/version": b"3\n"})


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def storage(key: str, count: bytes, kind: str = "Float") -> bytes:
    reference = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + count
    return b"(" + reference + b"NtQ"


def tensor_over(stored: bytes, shape: bytes, strides: bytes) -> bytes:
    """The state dict of a tensor."""
    more = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + b"K\x00" + shape + strides + more + b"tRs"
    )


def one_list_for_many_dicts(count: int = 1500) -> bytes:
    entries = b"".join(b"M" + struct.pack("<H", key) + b"N\x86" for key in range(count))
    first = b"ccollections\nOrderedDict\nq\x00](" + entries + b"eq\x02\x85q\x01R"
    return zipped(b"}" + text("x") + b"](" + first + b"h\x00h\x01R" * count + b"es")


def doubled(times: int) -> bytes:
    """A tuple of a tuple of … of a text, each twice in the next one, by the memo."""
    places = [struct.pack("<I", place) for place in range(times)]
    return text("a") + b"".join(b"r" + place + b"j" + place + b"\x86" for place in places)


def many_storages(count: int = 3000) -> bytes:
    """A file of torch before 1.6, each of whose storages is as large as the file."""
    head = [pickle.dumps(part, 2) for part in (MAGIC_NUMBER, 1001, {"protocol_version": 1001, "little_endian": True})]
    body = b"](" + b"".join(storage(str(k), number(150_000), "ComplexDouble") for k in range(count)) + b"e."
    return b"".join(head) + b"\x80\x02" + body + pickle.dumps([], 2) + bytes(300_000)


def two_tables_of_contents() -> bytes:
    """Python's reader sees a pickle of an empty dict, torch's the one that asks for a large bytearray."""
    hostile = zipped(b"}" + text("w") + b"c__builtin__\nbytearray\n" + number(300 << 20) + b"\x85Rs")
    plain = zipped(b"}")

    def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
        end = data.rfind(b"PK\5\6")
        size, offset = struct.unpack("<II", data[end + 12 : end + 20])
        return data[:offset], data[offset : offset + size], data[end:]

    def moved(table: bytes, by: int) -> bytes:
        found, place = b"", 0
        while place < len(table):
            length = 46 + struct.unpack("<H", table[place + 28 : place + 30])[0]
            entry, offset = table[place : place + length], struct.unpack("<I", table[place + 42 : place + 46])[0]
            found += entry[:42] + struct.pack("<I", offset + by) + entry[46:]
            place += length
        return found

    (members, table, _), (more, other, end) = parts(hostile), parts(plain)
    ends = end[:12] + struct.pack("<II", len(table), len(members) + len(more)) + end[20:]
    return members + more + table + moved(other, len(members) - len(table)) + ends


TAKES_MEMORY: dict[str, Callable[[], bytes]] = {
    "two tables of contents": two_tables_of_contents,
    "one list for many dicts": one_list_for_many_dicts,
    "many storages": many_storages,
    "a count that is a deep tuple": lambda: zipped(tensor_over(storage("0", doubled(26)), b")", b")")),
    "a text for a stride": lambda: zipped(
        tensor_over(storage("0", number(1)), number(300 << 20) + b"\x85", text("a") + b"\x85")
    ),
    "a negative storage": lambda: zipped(
        b"](" + storage("0", number(-(300 << 20))) + storage("1", number(300 << 20)) + b"e"
    ),
    "a deep key": lambda: zipped(b"})" + b"\x85" * 900_000 + b"Ns"),
    "float tensors": lambda: large(lambda shape: Calls(torch.FloatTensor, *shape)),
    "legacy float tensors": lambda: large(lambda shape: Calls(torch.FloatTensor, *shape), zipped=False),
    "new storages": lambda: large(over_a_new_storage(torch._utils._rebuild_tensor_v2)),
    "new storages, as of old": lambda: large(over_a_new_storage(torch._utils._rebuild_tensor)),
    "expanded network": lambda: large(lambda shape: torch.zeros(1).expand(shape)),
    "bytearray": lambda: saved({"model.1.weight": Calls(bytearray, 2 << 30)}),
    "legacy bytearray": lambda: saved({"model.1.weight": Calls(bytearray, 2 << 30)}, zipped=False),
    "tensor": lambda: saved({"model.1.weight": Calls(torch.Tensor, 2 << 30)}),
    "expanded": lambda: saved({"model.1.weight": torch.zeros(1).expand(10**6, 10**6)}),
}


def pretrained_folder(path: Path) -> Any:
    (path.parent / "model.safetensors").write_bytes(path.read_bytes())
    (path.parent / "config.json").write_bytes(path.read_bytes())
    return model_file.load(path.parent)


def init_from(path: Path) -> Any:
    file = path.with_name("latest_net_G_A.pth")
    file.write_bytes(path.read_bytes())
    small = CycleGANOptions(generator="resnet_1blocks", discriminator="patchgan_16", ngf=4, ndf=4)
    return initialise(CycleGAN(small), [file])


def resumed(path: Path) -> Any:
    states, data = StateStore(path.parent), path.read_bytes()
    states.path(10).write_bytes(data)
    facts = {"file": states.path(10).name, "step": 10, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    states.manifest(10).write_text(json.dumps(facts))
    return states.latest()


DOORS: dict[str, Callable[[Path], Any]] = {
    "open_model": open_model,
    "model file": lambda path: open_model(path.rename(path.with_suffix(".safetensors"))),
    "folder": pretrained_folder,
    "init-from": init_from,
    "resume": resumed,
}


@pytest.mark.promise("R46", "H4")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(RUNS_CODE))
@pytest.mark.parametrize("door", list(DOORS))
def test_no_code_runs(tmp_path: Path, door: str, kind: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "weights.pth"
    file.write_bytes(RUNS_CODE[kind](Calls(os.system, f"touch {marker}")))
    with pytest.raises(ModelError) as caught:
        DOORS[door](file)
    assert not marker.exists()
    assert caught.value.exit_code == 5
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.promise("R46")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(RUNS_CODE))
def test_the_restricted_unpickler_alone_runs_none(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dicts, "check_pickles", lambda path: None)
    test_no_code_runs(tmp_path, "open_model", kind)


@pytest.mark.promise("R46")
@pytest.mark.parametrize("kind", list(RUNS_CODE))
@pytest.mark.parametrize("door", ["open_model", "init-from"])
def test_torch_never_sees_them(tmp_path: Path, door: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(RUNS_CODE[kind](Calls(os.system, "exit 1")))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has seen the file"))
    with pytest.raises(ModelError):
        DOORS[door](file)


def test_the_files_are_hostile(tmp_path: Path) -> None:
    for kind in ("pickle", "zip", "legacy", "through an allowed class"):
        file = io.BytesIO(RUNS_CODE[kind](Calls(os.system, f"touch '{tmp_path / kind}'")))
        (pickle.load if kind == "pickle" else lambda f: torch.load(f, weights_only=False))(file)
        assert (tmp_path / kind).exists()


MEASURED = """
import json, os, sys, warnings
from pathlib import Path
from i2i.errors import ModelError
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../support"]
from test_hostile_models import DOORS
warnings.simplefilter("ignore")

def peak():  # of the addresses in use, so that memory which nobody has written to yet counts too; in kB
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmPeak"))

for name in ("open_model", "init-from"):
    if os.fork():  # each door in a process of its own, which has imported everything
        assert os.wait()[1] == 0
        continue
    found = {}
    for file in sys.argv[2:]:
        before = peak()
        try:
            DOORS[name](Path(file))
            reason = "accepted"
        except ModelError as error:
            reason = str(error)
        found[file] = peak() - before, reason
    print(json.dumps({name: found}), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, str]]]:
    """Door → file → the kB that it took there, and what was said of it."""
    folder, files = tmp_path_factory.mktemp("takes-memory"), []
    made_first = {"first": lambda: b"what is imported on the first call is not counted"}
    for kind, made in {**made_first, **TAKES_MEMORY}.items():
        files.append(folder / kind / "weights.pth")
        files[-1].parent.mkdir()
        files[-1].write_bytes(made())
        assert files[-1].stat().st_size < 10 << 20
    lines = python("-c", MEASURED, Path(__file__).parent, *files, check=True).stdout.splitlines()
    return {door: found for line in lines for door, found in json.loads(line).items()}


@pytest.mark.promise("R46", "R47", "H9")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
@pytest.mark.parametrize("door", ["open_model", "init-from"])
def test_a_small_file_takes_little_memory(taken: Any, door: str) -> None:
    kinds = [Path(file).parent.name for file in taken[door]]
    assert kinds == ["first", *TAKES_MEMORY]
    for file, (memory, reason) in list(taken[door].items())[1:]:
        assert reason.startswith(file.replace("weights.pth", "")) and "DefaultCPUAllocator" not in reason, reason
        assert memory < 100 << 10, file
