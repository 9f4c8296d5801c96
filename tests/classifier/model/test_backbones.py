import copy
import functools
import http.server
import socket
import threading
import time

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import nn

from classifier.model import weights as weights_module
from classifier.model.backbones import block_count, default_frozen
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.weights import load_weights as fill
from dermsynth.efficientnet_lite import weights_file
from dermsynth.errors import UserError


def build(backbone="efficientnet-lite0", size=32, frozen=5, batch_norm="fixed", seed=0):
    torch.manual_seed(seed)
    return Classifier(ModelSpec(backbone, size, frozen, batch_norm))


def load_weights(model, weights):
    return fill(model.backbone, model.spec.backbone, weights, model.spec.size)


def settle_batch_norm(model):
    """Statistics and affine parameters other than the initial 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)


@pytest.mark.parametrize(
    ("backbone", "library", "size"),
    [
        ("efficientnet-b3", EfficientNet, 64),
        ("efficientnet-b0", EfficientNet, 75),
        ("efficientnet-lite1", LiteNet, 50),
    ],
)
def test_forward_equals_the_library(backbone, library, size):
    model = build(backbone, size, frozen=3).eval()
    settle_batch_norm(model)
    reference = library.from_name(backbone, image_size=size, num_classes=1).eval()
    last = model.head.layers[-1]
    fc = {"_fc.weight": last.weight, "_fc.bias": last.bias}
    reference.load_state_dict(model.backbone.net.state_dict() | fc)
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        ours = model(x)
        theirs = reference((x - model.backbone.mean) / model.backbone.std)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "blocks", "five_stages"),
    [("efficientnet-b3", 26, 18), ("efficientnet-lite0", 16, 11), ("efficientnet-lite2", 21, 15)],
)
def test_block_counts(backbone, blocks, five_stages):
    assert block_count(backbone) == blocks == len(build(backbone, frozen=0).backbone.net._blocks)
    assert default_frozen(backbone) == five_stages


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "efficientnet-b0"])
@pytest.mark.parametrize("batch_norm", ["fixed", "adapt"])
@pytest.mark.parametrize("frozen", [0, 1, 7, 16])
def test_frozen_blocks_are_bit_equal_after_steps(backbone, batch_norm, frozen):
    model = build(backbone, 32, frozen, batch_norm)
    before = copy.deepcopy(model.backbone.net.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):
        model.train()
        optimizer.zero_grad()
        model(torch.rand(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    after = model.backbone.net.state_dict()
    frozen_names = ["_conv_stem.", "_bn0."] + [f"_blocks.{n}." for n in range(frozen)]
    norms = {
        name for name, m in model.backbone.net.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    for name in before:
        inside = frozen > 0 and any(name.startswith(prefix) for prefix in frozen_names)
        is_norm = name.rpartition(".")[0] in norms
        expect_same = inside and not (is_norm and batch_norm == "adapt")
        assert torch.equal(before[name], after[name]) == expect_same, name


def test_adapt_uses_the_momentum_of_the_student_project():
    momenta = {
        name: m.momentum
        for name, m in build(frozen=2, batch_norm="adapt").backbone.net.named_modules()
        if isinstance(m, nn.BatchNorm2d)
    }
    assert momenta["_blocks.1._bn1"] == momenta["_bn0"] == 0.15
    assert momenta["_blocks.2._bn1"] == 0.1


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "efficientnet-b0"])
def test_folded_trunk_equals_the_trunk(backbone):
    model = build(backbone, frozen=7)
    settle_batch_norm(model)
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = model.eval().trunk(x)
        torch.testing.assert_close(model.folded().trunk(x), expected, atol=1e-4, rtol=1e-4)


def test_trunk_hash_sees_the_trunk_alone():
    model = build(frozen=3)
    before = model.trunk_sha256()
    nn.init.ones_(model.head.layers[-1].weight)
    nn.init.ones_(model.backbone.net._blocks[3]._project_conv.weight)
    assert model.trunk_sha256() == before
    model.backbone.net._blocks[2]._bn1.running_mean += 1
    assert model.trunk_sha256() != before


def test_shipped_weights_fill_everything_but_the_last_layer():
    model = build()
    head = model.head.layers[-1].weight.clone()
    assert "not used of it: _fc.bias, _fc.weight" in load_weights(model, "imagenet")
    assert torch.equal(head, model.head.layers[-1].weight)
    file = torch.load(weights_file("efficientnet-lite0"), weights_only=True)
    for name, tensor in model.backbone.net.state_dict().items():
        assert torch.equal(tensor, file[name])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    source, target = build(seed=1), build(seed=2)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source.backbone.net.state_dict(), path)
    else:
        save_file(source.backbone.net.state_dict(), path)
    load_weights(target, str(path))
    for name, tensor in source.backbone.net.state_dict().items():
        assert torch.equal(tensor, target.backbone.net.state_dict()[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"weights{suffix}: damaged"):
        load_weights(target, str(path))
    with pytest.raises(UserError, match="no such file"):
        load_weights(target, str(tmp_path / "absent.pth"))


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file(build("efficientnet-b0").backbone.net.state_dict(), tmp_path / "b0.safetensors")
    with pytest.raises(UserError, match=r"not weights of efficientnet-lite0.*unknown.*_se_"):
        load_weights(build(), str(tmp_path / "b0.safetensors"))
    save_file(build("efficientnet-lite2").backbone.net.state_dict(), tmp_path / "lite2.safetensors")
    with pytest.raises(UserError, match="not weights of efficientnet-lite0"):
        load_weights(build(), str(tmp_path / "lite2.safetensors"))


class Opener:
    """What a pickle must not do."""

    def __reduce__(self):
        return (print, ("this pickle ran",))


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    torch.save({"x": Opener()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="holds more than tensors"):
        load_weights(build(), str(tmp_path / "bad.pth"))
    assert "this pickle ran" not in capsys.readouterr().out


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_no_network_names_the_ways_out_at_once(empty_cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setitem(weights_module.url_map, "efficientnet-b0", f"http://127.0.0.1:{port}/x.pth")
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        load_weights(build("efficientnet-b0"), "imagenet")
    assert time.monotonic() - started < 5
    for way_out in ("--weights FILE", "--weights none", "efficientnet-lite0"):
        assert way_out in str(error.value)


def test_a_silent_server_is_given_up(empty_cache, monkeypatch):
    monkeypatch.setattr(weights_module, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.pth"
        monkeypatch.setitem(weights_module.url_map, "efficientnet-b0", url)
        started = time.monotonic()
        with pytest.raises(UserError, match="could not be downloaded"):
            load_weights(build("efficientnet-b0"), "imagenet")
        assert time.monotonic() - started < 5


def test_a_download_that_breaks_off_is_noticed_and_removed(empty_cache, monkeypatch, tmp_path):
    model = build("efficientnet-b0")
    folder = tmp_path / "served"
    folder.mkdir()
    torch.save(model.backbone.net.state_dict(), folder / "b0.pth")
    whole = (folder / "b0.pth").read_bytes()
    (folder / "b0.pth").write_bytes(whole[: len(whole) // 2])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/b0.pth"
        monkeypatch.setitem(weights_module.url_map, "efficientnet-b0", url)
        with pytest.raises(UserError, match="run again to download it anew"):
            load_weights(model, "imagenet")
        assert not list(empty_cache.iterdir())
        (folder / "b0.pth").write_bytes(whole)
        assert "ImageNet weights in" in load_weights(build("efficientnet-b0", seed=3), "imagenet")
        server.shutdown()
