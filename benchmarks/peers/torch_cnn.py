"""The CNN of the pipeline in a bare loop of torch: images in memory, shuffled each epoch, then evaluated."""

import json
import os
import sys
import time

import torch
from torch.nn import functional as F

from pipeline.data import datasets
from pipeline.networks.cnn import CNN

EPOCHS, BATCH, EVALUATION_BATCH = int(sys.argv[1]), 128, 2_000

data = datasets.load("mnist", os.environ["MNIST_DIR"])
(x, y), (test_x, test_y) = (
    (torch.from_numpy(part.inputs.copy()).unsqueeze(1), torch.from_numpy(part.labels.astype("int64")))
    for part in (data.train, data.test)
)
torch.manual_seed(1)
network = CNN(data.spec)
optimizer = torch.optim.Adam(network.parameters())
seconds = []
for _ in range(EPOCHS):
    began = time.perf_counter()
    network.train()
    total = right = 0.0
    for rows in torch.randperm(len(x)).split(BATCH):
        images, labels = x[rows].float().div_(255), y[rows]
        logits = network(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
        right += (logits.argmax(1) == labels).sum().item()
    network.eval()
    with torch.no_grad():
        for images, labels in zip(test_x.split(EVALUATION_BATCH), test_y.split(EVALUATION_BATCH), strict=True):
            logits = network(images.float().div_(255))
            total += F.cross_entropy(logits, labels).item()
            right += (logits.argmax(1) == labels).sum().item()
    seconds.append(time.perf_counter() - began)
print(json.dumps({"epoch_seconds": seconds}))
