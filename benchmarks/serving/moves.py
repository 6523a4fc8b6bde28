"""100 moves of the alias under constant load: every answer must be right for the version that it names."""

import asyncio
import collections
import json
import tempfile
import time

import numpy as np
import uvloop

from benchmarks.serving import load, servers

MOVES, CONNECTIONS, PAUSE_S = 100, 8, 0.3


def expected(client, images):
    """Version -> its probabilities of the images, from the registry's files directly."""
    from pathlib import Path

    from pipeline.registry.versions import load as open_version

    answers = {}
    for version in ("1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            loaded = open_version(f"models:/{servers.MODEL}/{version}", servers.MODEL, version, "", Path(folder))
            answers[version] = loaded.predict(np.array(images, np.float32))
    return answers


def run(uri, folder, moves=MOVES):
    """Move and ask; returns what was found."""
    from pipeline.mlflow_client.connection import connect

    client = connect(uri)
    images = servers.images(4)
    right = expected(client, images)
    server = servers.ours(uri, folder, "--poll", "0.1")
    message = load.request("/invocations", json.dumps({"inputs": images}).encode())
    counts, faults = collections.Counter(), []
    stop = False

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 22)
        while not stop:
            status, head, body = await load.exchange(reader, writer, message)
            version = head.split(b"x-model-version:")[1].split(b"\r\n")[0].strip().decode() if status == 200 else ""
            counts[version] += 1
            if status != 200 or np.abs(json.loads(body)["predictions"] - right[version]).max() > 1e-6:
                faults.append(status)
        writer.close()

    async def move():
        nonlocal stop
        for k in range(moves):
            version = "2" if k % 2 == 0 else "1"
            await asyncio.to_thread(client.set_registered_model_alias, servers.MODEL, "champion", version)
            await asyncio.sleep(PAUSE_S)
        stop = True

    async def both():
        await asyncio.gather(move(), *[ask() for _ in range(CONNECTIONS)])

    began = time.perf_counter()
    uvloop.run(both())
    server.stop()
    exchanged = server.log.read_text().count('"model exchanged"') - 1
    return {
        "moves": moves,
        "exchanges": exchanged,
        "answers": dict(counts),
        "faults": len(faults),
        "seconds": round(time.perf_counter() - began, 1),
    }


def words(found):
    """What was found, in a line."""
    return (
        f"{found['moves']} alias moves in {found['seconds']} s under load ({found['exchanges']} exchanges): "
        f"{sum(found['answers'].values()):,} answers ({found['answers']}), {found['faults']} failed or wrong"
    )
