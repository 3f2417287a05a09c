"""A real kernel: controls are moved through a subshell, as JupyterLab does, while a cell trains."""

import json
import os

import pytest

from tinygpt.files import ROOT

pytestmark = pytest.mark.full

jupyter_client = pytest.importorskip("jupyter_client")

MADE = """
import json, sys, threading, torch
from tinygpt import ModelConfig, MoEConfig, TinyGPT, TrainConfig, Trainer, generateV2, load_corpus
from tinygpt.widgets import live, routing_explorer, sampling_playground

corpus = load_corpus("tinyplays")
torch.manual_seed(0)
moe = MoEConfig(n_experts=4, balance="loss")
model = TinyGPT(ModelConfig(corpus.tokenizer.vocab_size, 32, 2, 2, 16, dropout=0.5, moe=moe))
config = TrainConfig(max_steps=5000, batch_size=2, lr=1e-30, weight_decay=0.0, device="cpu")
trainer = Trainer(model, corpus, config)

moved, worked = [], []
move, step = live.Live._moved, live.Later._step
def watched_move(widget, change):
    moved.append(threading.current_thread().name)
    return move(widget, change)
def watched_step(later):
    worked.append((threading.current_thread().name, id(live._running_loop())))
    return step(later)
live.Live._moved, live.Later._step = watched_move, watched_step

playground = sampling_playground(model, "the ")
explorer = routing_explorer(model, "The rain, the wind.")
display(playground, explorer)
ids = {
    f"{name}.{control}": getattr(globals()[name], control).model_id
    for name, controls in {
        "playground": ["temperature", "seed", "prompt", "step", "replacement", "length"],
        "explorer": ["text", "drop", "layer", "seed"],
    }.items()
    for control in controls
}
print(json.dumps(ids | {"texts": playground.texts.model_id}))
"""

TRAINED = """
import asyncio
losses = []
while len(losses) < 300 and not (len(losses) > 30 and moved and playground.seed.value == 77):
    losses.append(trainer.train_step())
    assert all(module.training for module in model.modules())
    await asyncio.sleep(0)
"""

READY = """
for widget in (playground, explorer):
    while not widget._later._task.done():
        await asyncio.sleep(0.01)
model.eval()
prompt, seed = playground.prompt.value, playground.seed.value
expected = generateV2(model, prompt, playground.length.value, seed=seed, temperature=0.65)
print(json.dumps({
    "first": first,
    "moved": sorted(set(moved)),
    "worked": sorted({name for name, _ in worked}),
    "loops": len({loop for _, loop in worked}),
    "messages": [playground.message.value, explorer.message.value],
    "texts": playground.texts.value,
    "text": playground.results["temperature 0.65"],
    "expected": expected,
    "settings": [prompt, seed, explorer.text.value, explorer.drop.value, explorer.layer.value],
    "losses": len(losses),
}))
"""


class Kernel:
    """A kernel and what it said."""

    def __init__(self, folder):
        self.manager = jupyter_client.KernelManager(kernel_name="python3")
        env = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder)}
        self.manager.start_kernel(env=env | {"OMP_NUM_THREADS": "1"}, cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.messages = []

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def start(self, code):
        """Have a cell run; `wait` for it."""
        return self.client.execute(code)

    def wait(self, cell, seconds=120):
        """The printed text of a cell, when it has ended; errors and warnings are ours."""
        printed = ""
        while True:
            message = self.client.get_iopub_msg(timeout=seconds)
            self.messages.append(message)
            content, mine = message["content"], message["parent_header"].get("msg_id") == cell
            if mine and content.get("name") == "stdout":
                printed += content["text"]
            if mine and content.get("execution_state") == "idle":
                return printed

    def run(self, code):
        return self.wait(self.start(code))

    def subshell(self):
        request = self.client.session.msg("create_subshell_request")
        self.client.control_channel.send(request)
        while True:
            reply = self.client.get_control_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return reply["content"]["subshell_id"]

    def move(self, comm, state, subshell=None):
        """What the browser sends when a control is moved."""
        data = {"method": "update", "state": state, "buffer_paths": []}
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def complaints(self):
        return [
            m["content"]
            for m in self.messages
            if m["msg_type"] == "error" or m["content"].get("name") == "stderr"
        ]


@pytest.fixture
def kernel(tmp_path):
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def test_controls_are_moved_in_a_subshell_while_a_cell_trains(kernel):
    ids = json.loads(kernel.run(MADE).splitlines()[-1])
    subshell = kernel.subshell()
    # the kernel has a message answered where the last one to its widget was sent from, and a
    # first one therefore in the main shell
    kernel.move(ids["playground.temperature"], {"value": 1.3}, subshell)
    kernel.move(ids["explorer.drop"], {"index": 1}, subshell)
    kernel.run("first = sorted(set(moved))")
    cell = kernel.start(TRAINED)
    for i in range(40):
        kernel.move(ids["playground.temperature"], {"value": 0.3 + i / 40}, subshell)
        kernel.move(ids["explorer.drop"], {"index": i % 5}, subshell)
        kernel.move(ids["playground.step"], {"value": 1 + i % 9}, subshell)
        kernel.move(ids["playground.replacement"], {"index": i % 7}, subshell)
        kernel.move(ids["explorer.text"], {"value": f"The rain {'no ' * i}"}, subshell)
        kernel.move(ids["explorer.layer"], {"index": i % 2}, subshell)
    last = (
        *(("playground.prompt", {"value": "a dog "}), ("playground.temperature", {"value": 0.65})),
        *(("explorer.text", {"value": "The wind, the rain"}), ("explorer.drop", {"index": 2})),
        *(("playground.length", {"value": 60}), ("playground.seed", {"value": 77})),
    )
    for name, state in last:
        kernel.move(ids[name], state, subshell)
    kernel.wait(cell)
    found = json.loads(kernel.run(READY).splitlines()[-1])
    assert kernel.complaints() == []
    assert found["first"] == ["MainThread"]
    assert any(name.startswith("subshell-") for name in found["moved"])
    assert found["worked"] == ["MainThread"]
    assert found["loops"] == 1
    assert found["messages"] == ["", ""]
    assert found["settings"] == ["a dog ", 77, "The wind, the rain", 1, 1]
    assert found["text"] == found["expected"]
    assert "pending" not in found["texts"]
    assert found["losses"] > 30
    shown = [
        m["content"]["data"]["state"]["value"]
        for m in kernel.messages
        if m["msg_type"] == "comm_msg"
        and m["content"]["comm_id"] == ids["texts"]
        and "value" in m["content"]["data"].get("state", {})
    ]
    assert shown[-1] == found["texts"]  # what the browser has got
