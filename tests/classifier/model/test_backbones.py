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

FORMATS = [torch.contiguous_format, torch.channels_last]


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


def beside_the_library(model, size):
    """The library's network with the model's weights, as a function of images in 0..1.

    Frozen as the model is; both draw the same dropout and drop connect.
    """
    spec = model.spec
    library = LiteNet if "lite" in spec.backbone else EfficientNet
    net = library.from_name(spec.backbone, image_size=size, num_classes=1)
    last = model.head.layers[-1]
    nn.init.normal_(last.weight, std=0.1)
    fc = {"_fc.weight": last.weight, "_fc.bias": last.bias}
    net.load_state_dict(model.backbone.net.state_dict() | fc)
    net = net.to(last.weight.dtype)
    net._dropout.p = model.head.layers[0].p = 0  # the head's is ours and draws otherwise
    own = dict(model.backbone.net.named_parameters())
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in own or own[name].requires_grad)
    momenta = {n: m.momentum for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momenta[f"backbone.net.{name}"]
    net.train(model.training)
    if model.training and spec.batch_norm == "fixed" and spec.frozen:
        for module in (net._bn0, *net._blocks[: spec.frozen]):
            module.eval()
    return net, lambda x: net((x - model.backbone.mean) / model.backbone.std)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        *[("efficientnet-b0", size) for size in (32, 64, 75, 128)],
        *[(f"efficientnet-b{number}", 64) for number in (1, 2, 3)],
        *[("efficientnet-lite0", 64), ("efficientnet-lite1", 50)],
        *[pytest.param(f"efficientnet-b{n}", 64, marks=pytest.mark.slow) for n in (4, 5, 6, 7)],
    ],
)
def test_outputs_are_the_librarys(backbone, size, channels_last):
    model = build(backbone, size, frozen=3)
    settle_batch_norm(model)
    model = model.to(memory_format=FORMATS[channels_last]).eval()
    _, library = beside_the_library(model, size)
    x = torch.rand(2, 3, size, size).to(memory_format=FORMATS[channels_last])
    with torch.no_grad():
        theirs = library(x)
        torch.testing.assert_close(model(x), theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.for_inference()(x), theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(x), theirs, atol=1e-4, rtol=1e-4)  # with gradients


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch_norm", ["fixed", "adapt"])
@pytest.mark.parametrize(
    ("backbone", "size", "frozen"),
    [
        *[("efficientnet-b0", 64, frozen) for frozen in (0, 1, 11, 16)],
        *[("efficientnet-b0", 75, 3), ("efficientnet-b0", 128, 11)],
        ("efficientnet-b3", 128, 18),
        pytest.param("efficientnet-lite0", 64, 7, marks=pytest.mark.slow),
        *[
            pytest.param(f"efficientnet-b{number}", 64, 10, marks=pytest.mark.slow)
            for number in (1, 2, 4, 5, 6, 7)
        ],
    ],
)
def test_a_training_step_is_the_librarys(backbone, size, frozen, batch_norm, channels_last):
    """Outputs, gradients and statistics, drop connect included."""
    model = build(backbone, size, frozen, batch_norm)
    settle_batch_norm(model)
    # Most in float64: rounding grows on the way through batch norms over few positions.
    exact = backbone not in ("efficientnet-b0", "efficientnet-b3")
    dtype, near = (torch.float64, 1e-7) if exact else (torch.float32, 1e-4)
    model = model.to(dtype, memory_format=FORMATS[channels_last]).train()
    net, library = beside_the_library(model, size)
    x = torch.rand(4, 3, size, size, dtype=dtype).to(memory_format=FORMATS[channels_last])
    outputs = []
    for way in (model, library):
        torch.manual_seed(0)
        outputs.append(way(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, atol=near, rtol=near)
    theirs, ours = dict(net.named_parameters()), dict(model.backbone.net.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in theirs.values() if p.grad is not None)
    for name, parameter in ours.items():
        expected = theirs[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            # of biases before a batch norm rounding is all there is
            assert (parameter.grad - expected).abs().max() <= 10 * near * largest, name
    buffers = dict(model.backbone.net.named_buffers())
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, atol=near, rtol=near)


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
