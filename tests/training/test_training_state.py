"""Options that may change when a run is resumed, and those that may not; weights taken from elsewhere."""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from children import lines, run, start
from tiny_networks import tiny_vgg

from i2i.algorithms import CUT, CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions, Segmentation
from i2i.config import to_mapping
from i2i.errors import ModelError
from i2i.models import junyanz, model_file
from i2i.models.info import describe
from i2i.training.launch import initialise
from i2i.training.options import options_class
from i2i.training.state_store import StateStore
from i2i.training.training_state import check_same

BASE = "--max-steps 3 --workers 0"
CYCLEGAN = CycleGANOptions(generator="resnet_1blocks", discriminator="patchgan_16", ngf=4, ndf=4)
PIX2PIX = Pix2PixOptions(generator="unet_32", discriminator="patchgan_16", ngf=4, ndf=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of CycleGAN."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run("cyclegan", folder, BASE)
    return folder


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    return to


def contents(folder: Path) -> dict[str, str]:
    """Everything in a folder but who holds its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.promise("R15")
@pytest.mark.parametrize(
    ("algorithm", "option", "said", "differences"),
    [
        (
            "cyclegan",
            "--ngf 8 --lambda-identity 0",
            "ngf was 4, is now 8: this run has another architecture. Give --ngf 4, or another --run.",
            ["G_AB.width was 4, is now 8", "G_BA.width was 4, is now 8"],
        ),
        ("cyclegan", "--ndf 6", "ndf was 4, is now 6: ", ["D_A.width was 4, is now 6"]),
        ("cyclegan", "--norm batch", "norm was 'instance', is now 'batch': ", ["G_AB.norm was 'instance', is now"]),
        (
            "cyclegan",
            "--generator resnet_2blocks --dropout",
            "generator was 'resnet_1blocks', is now 'resnet_2blocks'; dropout was False, is now True: this run has "
            "another architecture. Give --generator resnet_1blocks --no-dropout, or",
            ["G_AB.blocks was 1, is now 2"],
        ),
        (
            "cyclegan",
            "--discriminator pixelgan",
            "discriminator was 'patchgan_16', is now 'pixelgan': ",
            ["D_A.kind was 'patchgan', is now 'pixelgan'"],
        ),
    ],
)
def test_another_architecture_is_refused(
    algorithm: str, option: str, said: str, differences: list[str], trained: Path, tmp_path: Path
) -> None:
    folder = copied(trained, tmp_path / "run")
    before = contents(folder)
    child = start(algorithm, folder, f"--max-steps 9 --workers 0 {option}")
    assert child.wait() == 5, child.said()
    first, second = child.said().split(said)[1].splitlines()[:2]
    assert "another --run" in said + first and "--init-from" in first
    assert all(difference in second for difference in differences) and second.count(";") <= 2
    assert contents(folder) == before, "nothing may change before the state is accepted"


RESIDUAL = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
PROJECTED = RESIDUAL | {"discriminator": "projected", "features": tiny_vgg(), "gan_mode": "hinge"}
SEGMENTATION = RESIDUAL | {"classes_b": "facades"}
WITHOUT_D = SEGMENTATION | {"lambda_gan": 0.0}


@pytest.mark.parametrize(
    ("kind", "before", "now", "reasons"),
    [
        (CUT, RESIDUAL, {"nce_layers": "0,2", "num_patches": 64, "lambda_identity": 1.0, "lr": 1e-3}, {"nce_layers"}),
        (CUT, RESIDUAL, {"ngf": 8, "nce_layers": "0,2", "init_gain": 0.1, "max_steps": 9}, {"ngf", "nce_layers"}),
        (CUT, RESIDUAL, PROJECTED | {"max_steps": 9}, {"discriminator", "features"}),
        (CUT, PROJECTED, RESIDUAL | {"features": "efficientnet", "ema": 0.9}, {"discriminator", "features"}),
        (CUT, PROJECTED, {"seed": 3, "lambda_NCE_A": 1.0, "temperature": 0.1}, {"seed"}),
        (Segmentation, WITHOUT_D, {"lambda_gan": 1.0, "gan_mode": "hinge", "lambda_CE": 2.0}, {"lambda_gan"}),
        (Segmentation, SEGMENTATION, {"lambda_gan": 0.0, "ema": 0.9}, {"lambda_gan"}),
        (CUT, RESIDUAL | {"generator": "my.Net"}, RESIDUAL | {"lambda_identity": 1.0, "ngf": 8}, {"generator", "ngf"}),
    ],
)
def test_the_options_that_make_another_architecture_are_named_alone(
    kind: type[Algorithm], before: dict[str, Any], now: dict[str, Any], reasons: set[str]
) -> None:
    """Not those of losses, or any others, that changed beside them."""
    was, goes_on = options_class(kind)(**before), options_class(kind)(**before | now)
    one, other = to_mapping(was), to_mapping(goes_on)
    changes = {name: (one[name], other[name]) for name in other if one[name] != other[name]}
    algorithm = kind(goes_on, *kind.channels(goes_on))
    if was.generator == "my.Net":  # of which only Python has the code
        state = state_of(algorithm)
        state["architecture"]["G"] = {"kind": "own"}
    else:
        state = state_of(kind(was, *kind.channels(was)))
    with pytest.raises(ModelError) as refused:
        check_same(state, algorithm, "a2b", changes)
    said = str(refused.value).partition(": this run has another architecture. Give ")[0]
    assert {part.partition(" was ")[0] for part in said.split("; ")} == reasons


def test_an_architecture_of_which_no_option_is_the_reason() -> None:
    """Such as that of an own network whose code has changed."""
    algorithm = CycleGAN(options_class(CycleGAN)(**RESIDUAL))
    state = state_of(algorithm)
    state["architecture"]["D_A"]["width"] = 5
    changes = {"lambda_cycle_A": (5.0, 10.0), "lr": (1e-3, 2e-4), "init_gain": (0.1, 0.02)}
    said = r"^this run has another architecture: D_A.width was 5, is now 4\. Give the options"
    with pytest.raises(ModelError, match=said):
        check_same(state, algorithm, "a2b", changes)


def state_of(algorithm: Algorithm) -> dict[str, Any]:
    """The networks as a state describes them."""
    weights = {name: network.state_dict() for name, network in algorithm.networks().items()}
    architecture = copy.deepcopy(algorithm.architecture())
    return {"algorithm": algorithm.name, "direction": "a2b", "architecture": architecture, "networks": weights}


@pytest.mark.promise("R15")
def test_another_algorithm_is_refused_by_the_configuration_and_by_the_state(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "run")
    before = contents(folder)
    child = start("pix2pix", folder, "--max-steps 9 --workers 0 --crop-size 32 --load-size 32")
    assert child.wait() == 2, child.said()
    assert "is for 'cyclegan', not for 'pix2pix': use i2i train cyclegan" in child.said()
    assert contents(folder) == before
    _, state = StateStore(trained).latest() or (0, {})
    with pytest.raises(ModelError, match="was trained by 'cyclegan', not by 'pix2pix'"):
        check_same(state, Pix2Pix(PIX2PIX), "a2b")


def test_another_direction_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "run")
    before = contents(folder)
    child = start("cyclegan", folder, "--max-steps 9 --workers 0 --direction b2a")
    assert child.wait() == 5, child.said()
    assert "direction was 'a2b', is now 'b2a'" in child.said() and "another --run" in child.said()
    assert contents(folder) == before


@pytest.mark.promise("R15")
def test_weights_of_other_names_or_shapes_are_refused(trained: Path) -> None:
    """Also where both say that they are of one architecture."""
    _, state = StateStore(trained).latest() or (0, {})
    weights = state["networks"]["G_AB"]
    name = next(iter(weights))
    whole = weights.pop(name)
    with pytest.raises(ModelError, match=rf"G_AB: {name} is missing on one side"):
        check_same(state, cyclegan(0), "a2b")
    weights[name] = whole[:1]
    with pytest.raises(ModelError, match=rf"G_AB\.{name}: \(1, .*\), now \({len(whole)}, "):
        check_same(state, cyclegan(0), "a2b")


def test_saying_what_is_so_anyway_is_no_other_architecture(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "run")
    run("cyclegan", folder, "--max-steps 4 --workers 0 --bias True")


def test_a_damaged_run_is_refused_and_nothing_changes(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "run")
    (folder / "state-00000003.pt").write_bytes(b"damaged")
    before = contents(folder)
    child = start("cyclegan", folder, "--max-steps 9 --workers 0 --lr 0.1")
    assert child.wait() == 5, child.said()
    assert "no usable training state" in child.said()
    assert contents(folder) == before


@pytest.mark.promise("R15")
def test_harmless_changes_are_made_and_logged(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path / "run")
    changes = "--lr 1e-3 --beta1 0.9 --n-epochs 7 --workers 1 --batch-size 2 --ema 0.9 --lambda-cycle-A 5 --pool-size 2"
    run("cyclegan", folder, f"--max-steps 5 {changes}")
    events = [line["text"] for line in lines(folder, "event")]
    for text in ("lr was 0.0002, is now 0.001", "beta1 was 0.5, is now 0.9", "n_epochs was 100, is now 7"):
        assert text in events
    for text in ("workers was 0, is now 1", "ema was 0.0, is now 0.9", "lambda_cycle_A was 10.0, is now 5.0"):
        assert text in events
    assert [line["lr"] for line in lines(folder, "step")] == [2e-4] * 3 + [1e-3] * 2
    assert lines(folder, "step")[-1]["images"] == 7, "3 steps of one image, 2 of two"
    state = torch.load(max(folder.glob("state-*.pt")), weights_only=True)
    for optimizer in state["training"]["optimizers"].values():
        assert optimizer["param_groups"][0]["betas"] == (0.9, 0.999)
    assert set(state["ema"]) == {"updates", "a2b", "b2a"}
    assert all(len(images) <= 2 for images in state["pools"][0].values())


def cyclegan(seed: int) -> Algorithm:
    torch.manual_seed(seed)
    return CycleGAN(CYCLEGAN)


def saved_as_reference(algorithm: Algorithm, names: dict[str, str], folder: Path) -> list[Path]:
    """Checkpoints as the reference would write them, under its names."""
    paths = []
    for theirs, ours in names.items():
        network = algorithm.networks()[ours]
        paths.append(folder / f"latest_net_{theirs}.pth")
        torch.save(junyanz.to_reference(network.config, network.state_dict()), paths[-1])  # type: ignore[arg-type]
    return paths


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_weights_of_the_reference(tmp_path: Path) -> None:
    """Its D_A judges images of B: it is our D_B."""
    theirs, ours = cyclegan(1), cyclegan(2)
    names = {"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A"}
    initialise(ours, saved_as_reference(theirs, names, tmp_path))
    for name, network in ours.networks().items():
        assert equal(network, theirs.networks()[name]), name


def test_weights_of_the_reference_for_pix2pix(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs, ours = Pix2Pix(PIX2PIX), Pix2Pix(PIX2PIX)
    initialise(ours, saved_as_reference(theirs, {"G": "G", "D": "D"}, tmp_path))
    assert equal(ours.G, theirs.G) and equal(ours.D, theirs.D)


def test_weights_of_the_reference_without_normalisation(tmp_path: Path) -> None:
    """There it builds no biases, here they are the default; with `bias` the same whether given or not, all is well."""
    torch.manual_seed(1)
    theirs, ours, other = (CycleGAN(replace(CYCLEGAN, norm="none", bias=bias)) for bias in (False, False, None))
    files = saved_as_reference(theirs, {"G_A": "G_AB", "D_A": "D_B"}, tmp_path)
    initialise(ours, files)
    assert equal(ours.G_AB, theirs.G_AB) and equal(ours.D_B, theirs.D_B)
    with pytest.raises(ModelError, match=r"bias is False, G_AB has True; start the run with bias=False"):
        initialise(other, files)
    explicit = CycleGAN(replace(CYCLEGAN, bias=True))
    path = tmp_path / "a2b.safetensors"
    model_file.save(path, explicit.G_AB, describe(explicit.G_AB, direction="a2b"))
    initialise(cyclegan(0), [path])


def test_a_run_from_the_reference_without_normalisation_is_resumed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = CycleGAN(replace(CYCLEGAN, norm="none", bias=False))
    (path,) = saved_as_reference(theirs, {"G_A": "G_AB"}, tmp_path)
    options = f"--norm none --bias False --lr 1e-9 --workers 0 --init-from {path} --max-steps"
    for steps in (1, 2):
        run("cyclegan", tmp_path / "run", f"{options} {steps}")
    taken, info = model_file.load(tmp_path / "run" / "a2b.safetensors")
    assert info.training.steps == 2
    for one, other in zip(taken.parameters(), theirs.G_AB.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("direction", "name"), [("a2b", "G_AB"), ("b2a", "G_BA")])
def test_weights_of_a_model_file(direction: str, name: str, tmp_path: Path) -> None:
    """`a2b` of the file is the way from domain A to B, whichever way the training goes."""
    theirs, ours = cyclegan(1), cyclegan(2)
    untouched = cyclegan(2)
    path = tmp_path / "a2b.safetensors"
    model_file.save(path, theirs.G_AB, describe(theirs.G_AB, direction="a2b"))  # type: ignore[attr-defined]
    initialise(ours, [path], direction)
    for own, network in ours.networks().items():
        expected = theirs.networks()["G_AB"] if own == name else untouched.networks()[own]
        assert equal(network, expected), own


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_a_training_of_one_generator_takes_a_model_file_of_either_direction(direction: str, tmp_path: Path) -> None:
    """A and B are names of the data set that the file came from."""
    torch.manual_seed(1)
    theirs, ours, path = Pix2Pix(PIX2PIX), Pix2Pix(PIX2PIX), tmp_path / "model.safetensors"
    model_file.save(path, theirs.G, describe(theirs.G, direction=direction))  # type: ignore[arg-type]
    assert not equal(ours.G, theirs.G)
    initialise(ours, [path])
    assert equal(ours.G, theirs.G)


def test_a_file_of_another_architecture_is_named(tmp_path: Path) -> None:
    wide = CycleGAN(CycleGANOptions(generator="resnet_2blocks", discriminator="patchgan_16", ngf=8, ndf=4))
    path = tmp_path / "a2b.safetensors"
    model_file.save(path, wide.G_AB, describe(wide.G_AB, direction="a2b"))
    with pytest.raises(ModelError, match=r"a2b\.safetensors: does not fit a2b: width is 8, a2b has 4; blocks is 2"):
        initialise(cyclegan(0), [path])
    with pytest.raises(ModelError, match=r"kind is 'resnet', a2b has 'unet'"):
        initialise(Pix2Pix(PIX2PIX), [path])
    odd = tmp_path / "weights.pth"
    torch.save(junyanz.to_reference(wide.G_AB.config, wide.G_AB.state_dict()), odd)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"its name does not say which network it is; expected \*_net_G_A\.pth \(G_AB"):
        initialise(cyclegan(0), [odd])


def test_init_from_in_a_run(trained: Path, tmp_path: Path) -> None:
    child = start("cyclegan", tmp_path / "run", f"{BASE} --ngf 8 --init-from {trained}/a2b.safetensors")
    assert child.wait() == 5, child.said()
    assert "does not fit" in child.said() and "start the run with --ngf 4" in child.said()
    assert not (tmp_path / "run").exists()

    missing = start("cyclegan", tmp_path / "run", f"{BASE} --init-from {tmp_path}/latest_net_G_A.pth")
    assert missing.wait() == 5, missing.said()
    assert not (tmp_path / "run").exists()

    given_file = tmp_path / "a2b.safetensors"
    given_file.write_bytes((trained / "a2b.safetensors").read_bytes())
    command = f"--lr 1e-9 --workers 0 --init-from {given_file} --max-steps"
    run("cyclegan", tmp_path / "run", f"{command} 3")
    taken, info = model_file.load(tmp_path / "run" / "a2b.safetensors")
    given, _ = model_file.load(trained / "a2b.safetensors")
    assert info.training.steps == 3
    for one, other in zip(taken.parameters(), given.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)
    given_file.unlink()
    run("cyclegan", tmp_path / "run", f"{command} 4")  # the run has weights of its own by now
