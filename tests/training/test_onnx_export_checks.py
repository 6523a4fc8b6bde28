"""A network is let through only if every probability of its export is that of the trained one: no NaN, no logits."""

import copy
import warnings
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from pipeline import onnx_session
from pipeline.data_spec import MNIST
from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP
from pipeline.training import onnx_export

IMAGES = np.random.RandomState(0).randint(0, 256, (7, 28, 28)).astype(np.uint8)


def network_of(**knobs):
    torch.manual_seed(0)
    return MLP(MNIST, **{"hidden_units": 8, **knobs})


def softmax_of(network, images):
    """What is to be served, in float64 and without this package."""
    values = images.reshape(len(images), -1) / 255
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            values = values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        elif isinstance(layer, nn.ReLU):
            values = np.maximum(values, 0)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def exported(tmp_path):
    network = network_of()
    onnx_export.export_onnx(network, MNIST, tmp_path / "network.onnx")
    return network, tmp_path / "network.onnx"


@pytest.fixture
def nothing_is_traced(monkeypatch):
    def fail(*arguments):
        raise AssertionError("traced")

    monkeypatch.setattr(onnx_export, "_trace", fail)


def answer_with(monkeypatch, change):
    """Let the exported network's answers be changed."""
    predict = onnx_export.predict

    def changed(path, images):
        answers = predict(path, images)
        change(answers)
        return answers

    monkeypatch.setattr(onnx_export, "predict", changed)


def test_what_is_exported_are_probabilities_of_raw_pixels_not_logits(exported):
    network, path = exported
    with torch.no_grad():
        for layer in network.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(3)  # so that logits would not pass for probabilities
    onnx_export.export_onnx(network, MNIST, path)
    for images in (IMAGES, IMAGES[:1], np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 255, np.uint8)):
        found = onnx_export.predict(path, images)
        assert (found.dtype, found.shape) == (np.float32, (len(images), 10))
        assert np.abs(found - softmax_of(network, images)).max() < 1e-6
        assert np.abs(found.sum(axis=1) - 1).max() < 1e-6


def test_no_images_give_no_probabilities(exported):
    assert onnx_export.predict(exported[1], IMAGES[:0]).shape == (0, 10)


def test_images_of_any_byte_order_and_number_type_are_the_same_images(exported):
    expected = onnx_export.predict(exported[1], IMAGES)
    for dtype in (">i2", "<i4", ">f4", "<f8", ">f8"):
        assert np.array_equal(onnx_export.predict(exported[1], IMAGES.astype(dtype)), expected)


def test_what_is_let_through_are_the_exported_network_s_own_answers(exported):
    network, path = exported
    assert np.array_equal(onnx_export.check_same(path, network, MNIST, IMAGES), onnx_export.predict(path, IMAGES))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("image", "digit"), [(0, 0), (6, 9), (3, 5)])
def test_one_answer_that_is_no_number_is_not_let_through(exported, monkeypatch, bad, image, digit):
    answer_with(monkeypatch, lambda answers: answers.__setitem__((image, digit), bad))
    with pytest.raises(RuntimeError, match=r"the exported network differs from the trained one by (nan|inf) in a prob"):
        onnx_export.check_same(exported[1], exported[0], MNIST, IMAGES)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_trained_network_that_gives_no_numbers_is_not_let_through(exported, bad):
    network, path = exported
    with torch.no_grad():
        network.layers[0].weight[0, 0] = bad
    with pytest.raises(RuntimeError, match="differs from the trained one by nan in a probability"):
        onnx_export.check_same(path, network, MNIST, IMAGES)
    onnx.save(onnx_export._graph_of(network, MNIST), path)  # also where both give the same NaN
    with pytest.raises(RuntimeError, match="differs from the trained one by nan in a probability"):
        onnx_export.check_same(path, network, MNIST, IMAGES)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("image", "digit"), [(0, 0), (6, 9)])
def test_a_ten_thousandth_is_let_through_and_no_more_of_any_probability(exported, monkeypatch, sign, image, digit):
    network, path = exported
    trained = onnx_export.check_same(path, network, MNIST, IMAGES)
    monkeypatch.setattr(onnx_export, "predict", lambda path, images: changed)
    for difference, passes in ((0.9e-4, True), (1.1e-4, False)):
        changed = trained.copy()
        changed[image, digit] += sign * difference
        if passes:
            assert np.array_equal(onnx_export.check_same(path, network, MNIST, IMAGES), changed)
            continue
        words = r"the exported network differs from the trained one by 0.000(11|109)[0-9]* in a probability"
        with pytest.raises(RuntimeError, match=words):
            onnx_export.check_same(path, network, MNIST, IMAGES)


def test_exactly_the_tolerance_is_let_through(exported, monkeypatch):
    network, path = exported
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with torch.no_grad():
        nn.init.zeros_(network.layers[-1].weight)  # ten times 0.1 exactly, whoever computes it
    onnx_export.export_onnx(network, MNIST, path)
    assert np.array_equal(onnx_export.check_same(path, network, MNIST, IMAGES), np.full((7, 10), 0.1, np.float32))


def test_probabilities_of_a_network_in_training_are_those_without_dropout(exported):
    network, path = exported
    network.train()
    for layer in network.layers:
        if isinstance(layer, Dropout):
            layer.p = 0.9
    onnx_export.check_same(path, network, MNIST, IMAGES)
    onnx_export.export_onnx(network, MNIST, path)
    assert np.abs(onnx_export.predict(path, IMAGES) - softmax_of(network, IMAGES)).max() < 1e-6


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_network_of_any_precision_is_exported_in_float32_and_is_not_changed(tmp_path, nothing_is_traced, precision):
    network = network_of().to(precision).train()
    before = copy.deepcopy(network.state_dict())
    path = tmp_path / "network.onnx"
    onnx_export.export_onnx(network, MNIST, path)
    found = onnx_export.check_same(path, network, MNIST, IMAGES)
    assert np.abs(found - softmax_of(network, IMAGES)).max() < 1e-6
    assert {each.data_type for each in onnx.load(path).graph.initializer} == {onnx.TensorProto.FLOAT}
    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == precision for name, value in before.items())


def test_the_mlp_is_written_down_and_not_traced(tmp_path, nothing_is_traced):
    network, path = network_of(hidden_layers=1), tmp_path / "network.onnx"
    onnx_export.export_onnx(network, MNIST, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Flatten", "Div", "Gemm", "Relu", "Gemm", "Softmax"]
    assert model.graph.name == "mlp"
    assert (model.ir_version, [(each.domain, each.version) for each in model.opset_import]) == (10, [("", 20)])
    for values, name, sizes in (
        (model.graph.input, "examples", ["N", 28, 28]),
        (model.graph.output, "probabilities", ["N", 10]),
    ):
        (value,) = values
        shape = [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        assert (value.name, value.type.tensor_type.elem_type, shape) == (name, onnx.TensorProto.FLOAT, sizes)


@pytest.mark.parametrize("change", ["an answer of the noise", "a layer", "no MLP"])
def test_what_the_graph_would_get_wrong_is_traced(exported, monkeypatch, change):
    network, path = exported
    traced = Mock(side_effect=LookupError("traced"))
    monkeypatch.setattr(onnx_export, "_trace", traced)
    if change == "a layer":
        network.layers[1] = nn.Tanh()
    elif change == "no MLP":
        network = nn.Linear(784, 10)
    else:  # of the last of 64 images alone
        answer_with(monkeypatch, lambda answers: answers[63:].fill(0.5))
    path.unlink()
    with pytest.raises(LookupError):
        onnx_export.export_onnx(network, MNIST, path)
    traced.assert_called_once_with(network, MNIST, path)


def test_the_noise_that_the_graph_is_tried_on_are_64_images_of_all_256_levels(exported, monkeypatch):
    tried = []
    monkeypatch.setattr(onnx_export, "check_same", lambda path, network, spec, images: tried.append(images))
    onnx_export.export_onnx(exported[0], MNIST, exported[1])
    (noise,) = tried
    assert (noise.shape, noise.dtype) == ((64, 28, 28), np.float32)
    assert len(np.unique(noise)) == 256
    onnx_export.export_onnx(exported[0], MNIST, exported[1])
    assert np.array_equal(tried[1], noise)


def test_only_the_cpu_is_asked(exported, monkeypatch):
    asked = []
    session = onnx_session.onnxruntime.InferenceSession

    def record(*words, **options):
        asked.append(options)
        return session(*words, **options)

    monkeypatch.setattr(onnx_session.onnxruntime, "InferenceSession", record)
    onnx_export.predict(exported[1], IMAGES)
    assert asked == [{"providers": ["CPUExecutionProvider"]}]


class KeepsFeatures(nn.Module):
    """Keeps what autograd made: by a hook, as Grad-CAM does, and with torch's older weight norm."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.layer = nn.utils.weight_norm(nn.Linear(784, 10))
        self.kept = []
        self.layer.register_forward_hook(self._keep)

    def _keep(self, layer, inputs, output):
        self.kept = [output]

    def forward(self, pixels):
        return self.layer(pixels.flatten(1))


class Parametrized(nn.Module):
    """Of an orthogonal weight ONNX knows no operator, and of a shared one two modules make use."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(784, 10))
        self.turned = nn.utils.parametrizations.orthogonal(nn.Linear(10, 10))
        self.again = self.turned

    def forward(self, pixels):
        return self.again(self.turned(self.layer(pixels.flatten(1)).relu()))


@pytest.mark.parametrize("kind", [KeepsFeatures, Parametrized])
def test_a_network_with_normed_weights_or_kept_features_is_exported_after_a_step_and_goes_on(tmp_path, kind):
    torch.manual_seed(0)
    network = kind().train()
    pixels = torch.from_numpy(IMAGES).unsqueeze(1).float() / 255
    network(pixels).sum().backward()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exported = onnx_export.export_onnx(network, MNIST, tmp_path / "network.onnx", IMAGES)
    after = network.state_dict()
    assert network.training
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    network(pixels).sum().backward()
    with torch.no_grad():
        for name, value in network.state_dict().items():  # the second step moved a power iteration
            value.copy_(before[name])
        expected = network.eval()(pixels).softmax(1).numpy()
    assert np.abs(exported - expected).max() < 1e-6
