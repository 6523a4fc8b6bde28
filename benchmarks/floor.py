"""The floor: nothing but the float32 matrix products of one epoch, through the fastest kernels that torch offers.

469 steps at batch 128 of forward, weight gradient and input gradient (none for the first layer's input), each into
memory that is there already, and the forward products of 10,000 images. Prints the median of seven epochs as JSON.
"""

import json
import statistics
import time

import torch

WIDTHS, BATCH, STEPS, EVALUATED = (784, 512, 512, 10), 128, 469, 10_000


def epoch(products):
    began = time.perf_counter()
    for left, right, out in products * STEPS:
        torch.mm(left, right, out=out)
    for left, right, out in EVALUATION:
        torch.mm(left, right, out=out)
    return time.perf_counter() - began


def tensors(*shapes):
    return [torch.randn(shape) for shape in shapes]


TRAINING, EVALUATION = [], []
for layer, (fan_in, fan_out) in enumerate(zip(WIDTHS, WIDTHS[1:])):  # noqa: B905, RUF007
    weight, inputs, gradient = tensors((fan_out, fan_in), (BATCH, fan_in), (BATCH, fan_out))
    TRAINING.append((inputs, weight.t(), torch.empty(BATCH, fan_out)))
    TRAINING.append((gradient.t(), inputs, torch.empty(fan_out, fan_in)))
    if layer:
        TRAINING.append((gradient, weight, torch.empty(BATCH, fan_in)))
    EVALUATION.append((torch.randn(EVALUATED, fan_in), weight.t(), torch.empty(EVALUATED, fan_out)))

best = {}
for precision in ("highest", "medium"):
    torch.set_float32_matmul_precision(precision)
    epoch(TRAINING)
    best[precision] = statistics.median(epoch(TRAINING) for _ in range(7))
print(json.dumps({"seconds": min(best.values()), "by_precision": best}))
