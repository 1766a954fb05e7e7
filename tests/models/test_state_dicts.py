"""Checkpoints of the reference: recognised by their keys, read without running anything."""

import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from i2i.errors import ModelError
from i2i.models import junyanz, metadata, pickles, state_dicts
from i2i.models.model_file import open_model
from i2i.networks.patchgan import PatchGANConfig, PixelGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

RESNET = ResnetConfig(width=2, blocks=1)
CUT = ResnetConfig(width=2, blocks=1, downsampling="antialiased", upsampling="antialiased")


def _weights(config: Any) -> dict[str, torch.Tensor]:
    return dict(config.build().state_dict())


def _reference(config: Any) -> dict[str, torch.Tensor]:
    return junyanz.to_reference(config, _weights(config))


def _configs(cls: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    norms = st.sampled_from([{"norm": "batch"}, {"norm": "instance"}, {"norm": "none", "bias": False}])
    return st.builds(lambda norm, **k: cls(**k, **norm), norm=norms, in_channels=st.integers(1, 8), **fields)


SAMPLING, OUT, TO_4 = st.sampled_from(["strided", "antialiased"]), st.integers(1, 5), st.integers(1, 4)
BLOCKS, LAYERS, DEPTH, NOISY = st.integers(1, 12), st.integers(1, 8), st.integers(5, 10), st.booleans()
CONFIGS = st.one_of(
    _configs(
        ResnetConfig,
        out_channels=OUT,
        width=TO_4,
        blocks=BLOCKS,
        dropout=NOISY,
        downsampling=SAMPLING,
        upsampling=SAMPLING,
    ),
    _configs(UNetConfig, out_channels=OUT, width=st.integers(1, 2), depth=DEPTH, dropout=NOISY),
    _configs(PatchGANConfig, width=TO_4, layers=LAYERS, downsampling=SAMPLING),
    _configs(PixelGANConfig, width=st.integers(1, 8)),
)


@pytest.mark.promise("R16")
@given(CONFIGS)
@settings(max_examples=60, deadline=None)
def test_round_trip_is_exact(config: Any) -> None:
    ours = _weights(config)
    theirs = junyanz.to_reference(config, ours)
    again, back = junyanz.convert(theirs, dropout=getattr(config, "dropout", None))
    assert again == config
    assert list(back) == list(ours)
    assert all(back[name] is tensor for name, tensor in ours.items())


@given(CONFIGS)
@settings(max_examples=20, deadline=None)
def test_norm_none_has_no_biases_before_it_and_keeps_the_numbering(config: Any) -> None:
    names = [name for name in _reference(config) if not name.endswith((".weight", ".bias", ".filt"))]
    assert bool(names) == (config.norm == "batch")
    assert {n.rpartition(".")[2] for n in names} <= {"running_mean", "running_var", "num_batches_tracked"}


def test_dropout_of_a_unet_is_stated() -> None:
    for norm, default in (("batch", True), ("instance", False)):
        reference = _reference(UNetConfig(width=1, depth=5, norm=norm))  # type: ignore[arg-type]
        assert junyanz.convert(reference)[0].dropout is default  # type: ignore[union-attr]
        assert junyanz.convert(reference, dropout=not default)[0].dropout is not default  # type: ignore[union-attr]


def test_statistics_of_old_instance_norms_are_dropped() -> None:
    reference = _reference(RESNET)
    for module in ("model.2", "model.10.conv_block.2"):
        reference |= {f"{module}.running_mean": torch.zeros(2), f"{module}.running_var": torch.ones(2)}
        reference[f"{module}.num_batches_tracked"] = torch.tensor(7)
    assert junyanz.convert(reference)[0] == RESNET


def test_counters_that_old_batch_norms_lack_are_added() -> None:
    config = PatchGANConfig(width=2, norm="batch")
    old = {n: t for n, t in _reference(config).items() if not n.endswith("num_batches_tracked")}
    found, tensors = junyanz.convert(old)
    assert found == config
    found.build().load_state_dict(tensors)


@pytest.mark.parametrize(
    "config",
    [
        ResnetConfig(width=2, blocks=1, norm="none"),
        ResnetConfig(width=2, blocks=1, norm="instance", bias=False),
        ResnetConfig(width=2, blocks=1, padding="zero"),
        UNetConfig(width=1, depth=5, norm="none", bias=True),
    ],
)
def test_configs_without_reference_counterpart_are_refused(config: Any) -> None:
    with pytest.raises(ModelError, match="cannot express"):
        _reference(config)


@pytest.mark.promise("R47")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.4.weight"), "model.4.weight is missing"),
        (lambda s: s.update({"model.99.weight": torch.zeros(1)}), "model.99.weight has no place"),
        (lambda s: s.update({"model.4.weight": torch.zeros(4, 3, 3, 3)}), r"model.4.weight has the shape"),
        (lambda s: s.update({"model.7.filt": torch.zeros(1)}), "model.20.weight is missing"),
        (lambda s: s.update({"mlp_0.0.weight": torch.zeros(1)}), "CUT's patch embedding"),
        (lambda s: s.update({"model.1.weight": torch.zeros(5)}), "where a convolution was expected"),
        (lambda s: s.update({"model.1.weight": torch.zeros(600, 3, 1, 1)}), "limits: width = 600"),
        (lambda s: s.update({"epoch": 3}), "'epoch' is a int, not a tensor"),
        (lambda s: s.update({"networks": {}, "architecture": {}}), "a training state, to go on from, and no model"),
        (lambda s: s.update({"module.model.1.bias": torch.zeros(2)}), "occurs twice"),
    ],
)
def test_checkpoint_errors_name_the_wrong_tensor(tmp_path: Path, change: Any, message: str) -> None:
    state = _reference(RESNET)
    change(state)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=message):
        junyanz.load(tmp_path / "net.pth")


@pytest.mark.parametrize("config", [CUT, PatchGANConfig(width=2, downsampling="antialiased")])
def test_changed_blur_filters_are_refused(config: Any) -> None:
    state = _reference(config)
    name = next(name for name in state if name.endswith("filt"))
    half = {key: tensor.half() for key, tensor in state.items()}
    assert junyanz.convert(half)[0] == config
    state[name] = state[name] + 0.01
    with pytest.raises(ModelError, match=f"{name}: not the binomial"):
        junyanz.convert(state)


@pytest.mark.parametrize("key", ["state_dict", "netG", "generator", "params_ema"])
def test_a_state_dict_among_other_things_is_found(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": [{"lr": 2e-4}]}
    wrapped = {"epoch": 3, "optimizer": optimizer, key: OrderedDict(_reference(RESNET)), "options": {}}
    torch.save(wrapped, tmp_path / "net.pth")
    assert junyanz.load(tmp_path / "net.pth")[0] == RESNET


def test_a_known_network_is_found_among_other_tensors(tmp_path: Path) -> None:
    reference = _reference(RESNET)
    wrapped = {f"module.{name}": tensor for name, tensor in reference.items()}
    for content in (
        {"epoch": torch.tensor(3), "state_dict": reference},
        {"netG": reference, "optimizer": {"lr": torch.tensor(1.0)}},
        {"netG": wrapped, 5: {"scale": torch.tensor(1.0)}, "average": torch.zeros(3)},
    ):
        torch.save(content, tmp_path / "net.pth")
        assert junyanz.load(tmp_path / "net.pth")[0] == RESNET


@pytest.mark.parametrize("zipped", [True, False])
def test_keys_that_are_no_names(tmp_path: Path, zipped: bool) -> None:
    first = next(iter(_reference(RESNET).values()))
    for content in ({1: first}, {"a": first, None: first}, {"net": {0: first}}, _reference(RESNET) | {2: first}):
        torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match=r"net\.pth: a key is of type (int|NoneType); expected the names"):
            junyanz.load(tmp_path / "net.pth")


@pytest.mark.promise("R47")
@pytest.mark.parametrize("name", ["keys", "values"])
def test_a_dict_with_other_methods_is_refused(tmp_path: Path, name: str) -> None:
    state = OrderedDict(_reference(RESNET))
    setattr(state, name, 3)
    for content in (state, {"net": state}):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(ModelError, match="a dict with attributes"):
            junyanz.load(tmp_path / "net.pth")


def test_parameters_are_read(tmp_path: Path) -> None:
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in _reference(RESNET).items()}
    torch.save(parameters, tmp_path / "net.pth")
    assert junyanz.load(tmp_path / "net.pth")[0] == RESNET


@pytest.mark.parametrize("metadata", [True, False])
def test_tensors_as_torch_wrote_them_before_0_4(tmp_path: Path, metadata: bool) -> None:
    """`_rebuild_tensor` has no flag for gradients; everything else is as today."""
    state = OrderedDict((name, _Old(tensor)) for name, tensor in _reference(RESNET).items())
    if metadata:
        state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=False)
    assert junyanz.load(tmp_path / "net.pth")[0] == RESNET


class _Old:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> Any:
        storage = torch.storage.TypedStorage(
            wrap_storage=self.tensor.untyped_storage(), dtype=self.tensor.dtype, _internal=True
        )
        return torch._utils._rebuild_tensor, (storage, 0, tuple(self.tensor.shape), self.tensor.stride())


def test_none_of_several_state_dicts_is_chosen(tmp_path: Path) -> None:
    both = {"netG": _reference(RESNET), "netD": _reference(PatchGANConfig(width=1))}
    torch.save(both, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"holds 2 state dicts \('netG', 'netD'\)"):
        junyanz.load(tmp_path / "net.pth")
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "none.pth")
    with pytest.raises(ModelError, match="'epoch' is a int"):
        junyanz.load(tmp_path / "none.pth")


def test_an_unknown_network_is_described_by_its_first_keys() -> None:
    with pytest.raises(ModelError, match=r"first keys are features.0.weight; expected a residual generator"):
        junyanz.convert({"features.0.weight": torch.zeros(1)})


@pytest.mark.promise("R16")
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_both_torch_formats(tmp_path: Path, zipped: bool) -> None:
    reference = OrderedDict(_reference(RESNET))
    reference._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(reference, tmp_path / "latest_net_G.pth", _use_new_zipfile_serialization=zipped)
    config, found = junyanz.load(tmp_path / "latest_net_G.pth")
    assert config == RESNET
    assert all(torch.equal(found[n], t) for n, t in zip(found, reference.values(), strict=True))


def test_saved_files_are_those_of_the_reference(tmp_path: Path) -> None:
    theirs = _reference(CUT)
    network = junyanz.build(*junyanz.convert(theirs))
    junyanz.save(tmp_path / "latest_net_G.pth", network)
    again = torch.load(tmp_path / "latest_net_G.pth", weights_only=True)
    assert type(again) is OrderedDict and list(again) == list(theirs)
    assert all(type(tensor) is torch.Tensor and torch.equal(tensor, theirs[name]) for name, tensor in again.items())
    with pytest.raises(ModelError, match=r"zero\.pth: not written: the reference's layout cannot express"):
        junyanz.save(tmp_path / "zero.pth", ResnetConfig(width=2, blocks=1, padding="zero").build())
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        junyanz.save(tmp_path / "nan.pth", network)
    assert [path.name for path in tmp_path.iterdir()] == ["latest_net_G.pth"]


class _Marks:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.promise("R46")
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(tmp_path: Path, zipped: bool) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "marker"
    torch.save({"model.1.weight": _Marks(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"evil.pth: .*code or objects") as caught:
        junyanz.load(file)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)
    torch.load(file, weights_only=False)  # the file would have run it
    assert marker.exists()


SHAPE = (2, 3, 7, 7)  # of model.1.weight: right in shape, wrong in kind
HOSTILE: dict[str, Callable[[], torch.Tensor]] = {
    "expanded": lambda: torch.zeros(1).expand(SHAPE),
    "expanded without limit": lambda: torch.zeros(1).expand(10**6, 10**6),
    "overlapping": lambda: torch.zeros(20).as_strided(SHAPE, (1, 1, 1, 1)),
    "sparse": lambda: torch.zeros(SHAPE).to_sparse(),
    "csr": lambda: torch.eye(2).to_sparse_csr(),
    "integer": lambda: torch.zeros(SHAPE, dtype=torch.int32),
    "complex": lambda: torch.zeros(SHAPE, dtype=torch.complex64),
    "meta": lambda: torch.zeros(SHAPE, device="meta"),
    "float8": lambda: torch.zeros(SHAPE).to(torch.float8_e4m3fn),
}


@pytest.mark.promise("R47", "H9")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(HOSTILE))
def test_hostile_tensors_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    torch.save(_reference(RESNET) | {"model.1.weight": HOSTILE[kind]()}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth: model\.1\.weight: ") as caught:
        junyanz.load(tmp_path / "net.pth")
    assert "instead of" not in str(caught.value)  # refused for what it is, before its shape is compared


@pytest.mark.promise("R47")
@pytest.mark.parametrize("attribute", ["numel", "untyped_storage", "float", "expand_as"])
def test_tensors_with_other_methods_are_refused(tmp_path: Path, attribute: str) -> None:
    odd = torch.nn.Parameter(torch.zeros(SHAPE))
    setattr(odd, attribute, 3)
    torch.save(_reference(RESNET) | {"model.1.weight": odd}, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth: model\.1\.weight: .*_rebuild_parameter_with_state"):
        junyanz.load(tmp_path / "net.pth")


class _SetAgain(_Old):
    """Rebuilt, it is given another storage, shape and strides."""

    def __reduce__(self) -> Any:
        rebuild, arguments = super().__reduce__()
        return rebuild, arguments, (arguments[0], 0, (1 << 40,), (0,))


@pytest.mark.promise("R47")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_is_set_again_is_refused(tmp_path: Path, zipped: bool) -> None:
    state = _reference(RESNET) | {"model.1.weight": _SetAgain(torch.zeros(SHAPE))}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"net\.pth: model\.1\.weight: .*\(BUILD\)"):
        junyanz.load(tmp_path / "net.pth")


@pytest.mark.promise("R47", "H9")
@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (lambda: torch.zeros(1).expand(10**6, 10**6), "larger than what is stored"),
        (lambda: torch.full((2, 2), float("nan")), "not finite"),
        (lambda: torch.zeros(2, 2, dtype=torch.int32), "expected float32"),
    ],
)
def test_a_patch_embedding_is_held_to_the_same_rules(
    tmp_path: Path, weight: Callable[[], torch.Tensor], reason: str
) -> None:
    torch.save({"mlp_0.0.weight": weight()}, tmp_path / "net_F.pth")
    with pytest.raises(ModelError, match=rf"net_F\.pth: mlp_0\.0\.weight: .*{reason}"):
        junyanz.load_embedding(tmp_path / "net_F.pth")


@pytest.mark.promise("R47")
@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.zeros(SHAPE), 0.1, 0, torch.qint8)
    torch.save(_reference(RESNET) | {"model.1.weight": quantised}, tmp_path / "net.pth")
    with pytest.raises(ModelError):
        junyanz.load(tmp_path / "net.pth")


@pytest.mark.promise("R47")
def test_tensors_over_one_storage_are_refused(tmp_path: Path) -> None:
    shared = torch.zeros(4 * 2 * 9)
    state = _reference(RESNET)
    state |= {"model.4.weight": shared.view(4, 2, 3, 3), "model.22.weight": shared.view(4, 2, 3, 3)}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match="larger than what is stored"):
        junyanz.load(tmp_path / "net.pth")


@pytest.mark.promise("R47")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_weights_are_refused_by_name(tmp_path: Path, value: float) -> None:
    state = _reference(RESNET)
    state["model.4.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"down\.0\.conv\.weight: not finite"):
        junyanz.load(tmp_path / "net.pth")


@pytest.mark.promise("R46")
@pytest.mark.parametrize(
    ("data", "reason"),
    [(bytes(1 << 20), "larger than the file"), (bytes(range(99)), "compressed")],
    ids=["large", "small"],
)
def test_a_compressed_member_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    torch.save(_reference(RESNET), tmp_path / "bomb.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "a") as packed:
        packed.writestr("bomb/data/99", data, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match=rf"its members are {reason}"):
        junyanz.load(tmp_path / "bomb.pth")


@pytest.mark.promise("R47")
def test_limits_of_size_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metadata.MAX_TENSORS == 10_000  # which take seconds to write
    monkeypatch.setattr(state_dicts, "MAX_TENSORS", 100)
    torch.save({str(i): torch.zeros(()) for i in range(101)}, tmp_path / "many.pth")
    with pytest.raises(ModelError, match="at most 100 "):
        junyanz.load(tmp_path / "many.pth")
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="pickles have more than 1,000 bytes"):
        patch.setattr(pickles, "MAX_PICKLE_BYTES", 1000)
        junyanz.load(tmp_path / "many.pth")
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate((4 << 30) + 1)
    with pytest.raises(ModelError, match="at most 4,294,967,296"):
        junyanz.load(tmp_path / "sparse.pth")


@pytest.mark.promise("R47")
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_other_files(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").touch()
    os.mkfifo(tmp_path / "pipe.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "script.pth"))
    for name in ("list.pth", "text.pth", "empty.pth", "pipe.pth", "script.pth", "missing.pth", "."):
        with pytest.raises(ModelError):
            junyanz.load(tmp_path / name)


@pytest.mark.promise("H8")
def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(_reference(RESNET), file)
    with zipfile.ZipFile(file) as archive:
        member = max(archive.infolist(), key=lambda member: member.file_size if "/data/" in member.filename else 0)
    content = bytearray(file.read_bytes())
    start = member.header_offset + 30 + int.from_bytes(content[member.header_offset + 26 :][:2], "little")
    start += int.from_bytes(content[member.header_offset + 28 :][:2], "little")
    content[start + 2] ^= 1
    file.write_bytes(content)
    torch.load(file, weights_only=True)  # torch does not
    with pytest.raises(ModelError, match=r"net\.pth: damaged: the checksum of its member"):
        junyanz.load(file)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damage_never_crashes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save(_reference(RESNET), file, _use_new_zipfile_serialization=data.draw(st.booleans()))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 3]))])
    try:
        config, _ = junyanz.load(file)
    except ModelError as error:
        assert str(error).startswith(str(file))
    else:
        assert config.kind == "resnet"


# The keys decide, whatever holds them


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "netG.", "model.generator.", "a.b.c.d."]
)
def test_a_prefix_that_all_keys_have_is_dropped(prefix: str) -> None:
    found, weights = junyanz.convert({prefix + name: tensor for name, tensor in _reference(RESNET).items()})
    assert found == RESNET
    assert {name: tensor.shape for name, tensor in weights.items()} == {n: t.shape for n, t in _weights(RESNET).items()}


def test_prefix_of_only_some_keys_is_kept() -> None:
    given = {f"netG.{name}": tensor for name, tensor in _reference(RESNET).items()}
    with pytest.raises(ModelError, match="unknown network"):
        junyanz.convert({**given, "netD.model.0.weight": torch.zeros(1)})


def test_the_reference_keys_in_safetensors(tmp_path: Path) -> None:
    config = ResnetConfig(width=4, blocks=1)
    for file, prefix in (("a.safetensors", ""), ("lightning.bin", "netG.")):
        ours = {name: torch.randn_like(value) for name, value in _weights(config).items()}
        theirs = junyanz.to_reference(config, ours)
        save_file({prefix + name: tensor for name, tensor in theirs.items()}, tmp_path / file)
        network, info = open_model(tmp_path / file)
        assert info.network_config() == config
        found = network.state_dict()
        assert found.keys() == ours.keys() and all(torch.equal(found[name], ours[name]) for name in ours)


@pytest.mark.promise("R47")
def test_safetensors_of_others_are_refused_by_name(tmp_path: Path) -> None:
    weights = _reference(ResnetConfig(width=4, blocks=1))
    weights["model.1.weight"][0] = math.nan
    save_file(weights, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"nan\.safetensors: .*not finite"):
        open_model(tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "nan.safetensors").read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"cut\.safetensors: damaged"):
        open_model(tmp_path / "cut.safetensors")
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"unknown network: its first keys are a\.weight"):
        open_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_protocol_of_a_pickle_is_named_and_not_called_code(tmp_path: Path, protocol: int) -> None:
    torch.save(_reference(ResnetConfig(width=4, blocks=0)), tmp_path / "a.pth", pickle_protocol=protocol)
    with pytest.raises(ModelError, match=f"of protocol {protocol}, and torch reads weights of protocol 2"):
        junyanz.load(tmp_path / "a.pth")


def _pickled(path: Path, opcodes: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
        file.writestr("archive/version", "3\n")
    return path


@pytest.mark.promise("R45", "R46")
@pytest.mark.parametrize("opcodes", [b"}" * 5_000, b"](" + b"}" * 5_000 + b"e"], ids=["in vain", "in a list"])
def test_a_pickle_of_nothing_is_refused(tmp_path: Path, opcodes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation takes a microsecond here, and a hundred bytes in torch."""
    assert pickles.MAX_OPCODES == 1_000_000
    monkeypatch.setattr(pickles, "MAX_OPCODES", 5_000)
    with pytest.raises(ModelError, match="more than 5,000 operations"):
        junyanz.load(_pickled(tmp_path / "a.pth", opcodes))


@pytest.mark.promise("R46")
def test_bytes_after_a_pickle_are_damage(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="damaged or not written"):
        junyanz.load(_pickled(tmp_path / "a.pth", b"}}"))


@pytest.mark.promise("R46")
def test_a_long_table_of_contents_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        for number in range(12_000):
            file.writestr(f"archive/data/{number}", b"")
    with pytest.raises(ModelError, match=r"more than 11,000 members"):
        junyanz.load(tmp_path / "a.pth")
