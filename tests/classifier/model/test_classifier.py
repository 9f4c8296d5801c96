import copy

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from classifier.model.backbones import (
    block_count,
    block_of_parameter,
    build_backbone,
    default_frozen,
)
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.heads import Head
from classifier.model.weights import load_weights
from dermsynth.errors import UserError

SMALL = (
    *("efficientnet-lite0", "vanilla-cnn", "vanilla-cnn-6m", "small-densenet"),
    *("timm:test_resnet", "timm:test_vit"),
)


def build(backbone="efficientnet-lite0", size=64, seed=0, **changes):
    torch.manual_seed(seed)
    return Classifier(ModelSpec(backbone, size, **changes))


@given(st.integers(32, 4096))
def test_large_images_pass_in_the_memory_of_small_ones(size):
    at_once = ModelSpec("efficientnet-b6", size).at_once
    assert 64 % at_once == 0
    assert at_once == 1 or size <= 128 or at_once * size**2 <= 64 * 128**2
    assert at_once == 64 or 2 * at_once * size**2 > 64 * 128**2  # and not in much less


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("head", ["linear", "hidden", "max", "multi-level", "metadata"])
def test_every_head_on_every_backbone_learns(backbone, head):
    columns = 5 if head == "metadata" else 0
    model = build(backbone, head=head, outputs=7, columns=columns).train()
    metadata = torch.rand(4, columns) if columns else None
    logits = model(torch.rand(4, 3, 64, 64), metadata)
    assert logits.shape == (4, 7)
    logits.square().sum().backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad.abs().sum() > 0 or "layers" not in name, name
    first = next(p for p in model.backbone.parameters() if p.requires_grad)
    assert first.grad is not None


def test_the_heads_by_hand():
    maps = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)]
    for name, pooled in {
        "linear": maps[1].mean((2, 3)),
        "max": maps[1].amax((2, 3)),
        "multi-level": torch.cat([maps[0].mean((2, 3)), maps[1].mean((2, 3))], 1),
    }.items():
        seen = maps if name == "multi-level" else maps[1:]
        head = Head(name, [x.shape[1] for x in seen], 1, 0.5).eval()
        last = head.layers[-1]
        torch.testing.assert_close(head(seen), pooled @ last.weight.T + last.bias)
    hidden = Head("hidden", [5], 1, 0.5)
    assert [layer.out_features for layer in hidden.layers if hasattr(layer, "out_features")] == [
        *(512, 1)
    ]
    fused = Head("metadata", [5], 1, 0.5, columns=9)
    widths = [m.out_features for m in fused.modules() if isinstance(m, nn.Linear)]
    assert sorted(widths) == [1, 50, 182, 512]
    kinds = [type(m).__name__ for m in fused.modules() if not list(m.children())]
    assert kinds == [  # of metadata norm before ReLU, behind it the other way round
        *("Linear", "BatchNorm1d", "ReLU"),
        *("Linear", "ReLU", "BatchNorm1d", "Dropout") * 2,
        "Linear",
    ]


def test_the_networks_from_scratch_have_the_parameters_they_are_named_for():
    count = {
        name: sum(p.numel() for p in build(name).backbone.parameters()) / 1e6
        for name in ("vanilla-cnn", "vanilla-cnn-6m", "small-densenet")
    }
    assert count["vanilla-cnn"] == pytest.approx(0.39, abs=0.01)
    assert count["vanilla-cnn-6m"] == pytest.approx(6.29, abs=0.01)
    assert count["small-densenet"] == pytest.approx(6.31, abs=0.01)


@pytest.mark.parametrize("frozen", range(27))
def test_b3_frozen_is_the_stem_and_the_first_blocks(frozen):
    """`--frozen n` freezes the stem and the first n blocks, of 26."""
    model = shared_b3(frozen)
    for name, parameter in model.backbone.net.named_parameters():
        block = int(name.split(".")[1]) if name.startswith("_blocks.") else None
        stem = name.startswith(("_conv_stem", "_bn0"))
        inside = frozen > 0 and (stem or (block is not None and block < frozen))
        assert parameter.requires_grad != inside, name
    assert all(p.requires_grad for p in model.head.parameters())


_built: dict[str, Classifier] = {}


def shared_b3(frozen):
    """Freezing anew is much faster than building anew."""
    import dataclasses

    model = _built.setdefault("b3", build("efficientnet-b3", 64)).requires_grad_(True)
    model.spec = dataclasses.replace(model.spec, frozen=frozen)
    model._freeze()
    return model


def test_eighteen_frozen_blocks_of_b3_are_five_stages():
    assert (block_count("efficientnet-b3"), default_frozen("efficientnet-b3")) == (26, 18)
    trained = [n for n, p in shared_b3(18).backbone.net.named_parameters() if p.requires_grad]
    assert {int(n.split(".")[1]) for n in trained if n.startswith("_blocks.")} == set(range(18, 26))
    assert any(n.startswith("_conv_head") for n in trained)


def test_b3_equals_the_library_whole():
    model = build("efficientnet-b3", 96).eval()
    reference = EfficientNet.from_name("efficientnet-b3", image_size=96, num_classes=1).eval()
    last = model.head.layers[-1]
    fc = {"_fc.weight": last.weight, "_fc.bias": last.bias}
    reference.load_state_dict(model.backbone.net.state_dict() | fc)
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        theirs = reference((x - model.backbone.mean) / model.backbone.std)
        torch.testing.assert_close(model(x), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "timm:test_convnext", "small-densenet"])
def test_timm_models_freeze_by_their_own_blocks(backbone):
    blocks = block_count(backbone)
    for frozen in (0, 1, blocks - 1, blocks):
        model = build(backbone, frozen=frozen)
        of = block_of_parameter(model.backbone.net)
        before = copy.deepcopy(model.backbone.net.state_dict())
        model.train()
        model(torch.rand(4, 3, 64, 64)).square().sum().backward()
        for name, parameter in model.backbone.net.named_parameters():
            assert parameter.requires_grad == (frozen == 0 or of[name] > frozen), name
        now = model.backbone.net.state_dict()
        for name in (name for name in before if "running" in name):
            inside = frozen > 0 and of[f"{name.rpartition('.')[0]}.weight"] <= frozen
            assert torch.equal(before[name], now[name]) == inside, name
        frozen_norms = [
            m for m in model.frozen_modules() if isinstance(m, nn.BatchNorm2d) and m.training
        ]
        assert not frozen_norms
        assert not model.trunk_is_pure


def test_a_trunk_of_vanilla_blocks_splits():
    model = build("vanilla-cnn", frozen=2, head="multi-level").eval()
    whole = copy.deepcopy(model)
    whole.spec = ModelSpec("vanilla-cnn", 64, 0, head="multi-level")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.tail(model.folded().trunk(x)), whole(x))


def test_multi_level_maps_do_not_depend_on_the_split():
    one = build(frozen=11, head="multi-level").eval()
    other = build(frozen=0, head="multi-level").eval()
    other.load_state_dict(one.state_dict())
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x))


def test_the_head_alone_trains_in_the_first_stage():
    model = build(frozen=7)
    model.head_only = True
    model.train()
    frozen = copy.deepcopy([part.state_dict() for part in model.frozen_modules()])
    model(torch.rand(4, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    for part, before in zip(model.frozen_modules(), frozen, strict=True):
        assert all(torch.equal(before[name], now) for name, now in part.state_dict().items())


def test_the_second_stage_starts_where_the_first_ended():
    x, logits = torch.rand(8, 3, 64, 64), []
    for head_only in (True, False):
        model = build(frozen=7)
        model.head_only = head_only
        model.train()
        torch.manual_seed(0)  # what is dropped
        with torch.no_grad():
            logits.append(model(x))
    torch.testing.assert_close(*logits)


def test_small_densenet_has_about_six_million_parameters():
    count = sum(p.numel() for p in build_backbone("small-densenet", 64).parameters())
    assert 5.5e6 < count < 6.5e6


@pytest.mark.parametrize(
    ("backbone", "size", "message"),
    [
        ("timm:resnet_18", 64, r"timm has no such model; near: .*resnet18"),
        ("resnet18", 64, "unknown; choose one of efficientnet-b0.*or timm:NAME"),
        ("timm:inception_v3", 32, "--size 32: timm:inception_v3 cannot take images of this side"),
    ],
)
def test_bad_backbones(backbone, size, message):
    with pytest.raises(UserError, match=message):
        build_backbone(backbone, size)


def test_timm_weights_come_from_files_by_their_own_names(tmp_path):
    import timm

    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", num_classes=9)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone("timm:test_resnet", 64)
    words = load_weights(backbone, "timm:test_resnet", str(tmp_path / "w.pth"), 64)
    assert "not used of it: fc.bias, fc.weight" in words
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])
    with pytest.raises(UserError, match="not weights of timm:test_vit"):
        load_weights(
            build_backbone("timm:test_vit", 64), "timm:test_vit", str(tmp_path / "w.pth"), 64
        )


def test_no_network_for_timm_names_the_ways_out(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    name = "timm:test_resnet"
    with pytest.raises(UserError, match=r"could not be had(.|\n)*--weights FILE"):
        load_weights(build_backbone(name, 64), name, "imagenet", 64)


def test_scratch_backbones_have_no_imagenet_weights():
    with pytest.raises(UserError, match="there are none for vanilla-cnn"):
        load_weights(build_backbone("vanilla-cnn", 64), "vanilla-cnn", "imagenet", 64)
