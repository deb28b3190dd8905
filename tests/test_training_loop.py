"""The training loop that all trainings share."""

import io
import json
import math
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from avface.errors import AvfaceError
from avface.training.loop import devices as loop_devices
from avface.training.loop.checkpoint import Progress
from avface.training.loop.config import Optimisation, RunConfig, warm_up_cosine
from avface.training.loop.devices import SingleDevice, launch_fabric
from avface.training.loop.reporting import Reporter, TensorBoard
from avface.training.loop.trainer import Task, Trainer, checkpoint_path

CONSTANT = Optimisation(10, 0.1, 0, 1e9, 0.5, "constant")


class Square(Task):
    """Minimises the square of a weight that begins at 3, with noise from a stream that goes on from step to step."""

    name = "square"
    checkpoint_format = "avface test training 1"

    def __init__(self, optimisation=CONSTANT, noise=0.0, losses=None, **changes):
        self.recipe, self.devices = {"gradient_norm": 1e9}, SingleDevice("cpu")
        self.optimisation, self.noise, self.given = optimisation, noise, losses
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.network.weight, 3.0)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1.0)
        self.rng = np.random.default_rng(0)
        self.saved, self.finished = [], 0
        for name, value in changes.items():
            setattr(self, name, value)

    def batches(self, first):
        return (self.noise * self.rng.normal() for _ in count(first))

    def losses(self, module, batch, step):
        if self.given is not None:
            return self.given(module, step)
        return {"square": (module.weight + batch).square().sum()}

    def random_state(self):
        return {"rng": dict(self.rng.bit_generator.state)}

    def set_random_state(self, state):
        self.rng.bit_generator.state = state["rng"]

    def finish(self, network):
        self.finished += 1
        return {}

    def save(self, network, path, metadata):
        self.saved.append((weight(network), metadata))
        path.write_text("weights")


def weight(network):
    return float(next(network.parameters()).detach())


def trainer(folder, task=None, **config):
    config = RunConfig(**{"report_every": 1, "quiet": True, **config})
    return Trainer(task or Square(), config, folder / "weights.safetensors")


def test_a_step_descends_the_sum_of_the_losses_and_the_average_follows_the_weights(tmp_path):
    task = Square(
        losses=lambda module, step: {"square": module.weight.square().sum(), "linear": module.weight.sum()}
    )
    run = trainer(tmp_path, task)
    run.step(0.0, 0.0)
    assert weight(task.network) == pytest.approx(3 - 0.1 * (2 * 3 + 1))
    first = weight(task.network)
    run.step(0.0, 0.0)
    assert weight(run.averaged) == pytest.approx((first + weight(task.network)) / 2)
    assert run.progress.step == 2


def test_gradients_are_clipped(tmp_path):
    task = Square(replace(CONSTANT, learning_rate=1.0, gradient_norm=0.5))
    trainer(tmp_path, task).step(0.0, 0.0)
    assert weight(task.network) == pytest.approx(2.5, abs=1e-4)


def test_reports_are_means_over_the_steps_that_had_a_loss(tmp_path):
    def losses(module, step):
        total = 0 * module.weight.sum()
        return {"often": total + step, **({"rare": total + 8} if step == 0 else {})}

    run = trainer(tmp_path, Square(replace(CONSTANT, steps=2), losses=losses), report_every=2)
    console = Console(file=io.StringIO(), width=200)
    run._reporter = Reporter(console=console)
    result = run.run()
    line = console.file.getvalue()
    assert line.startswith("step 2, 0 s: loss 4.5000  often 0.5000  rare 8.0000  waiting "), line
    assert result.progress.losses == [4.5]


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(tmp_path):
    task = Square(losses=lambda module, step: {"loss": float("nan") * module.weight.sum()})
    run = trainer(tmp_path, task)
    run.progress.step = 7
    with pytest.raises(AvfaceError, match=r"weights\.safetensors: the loss isn't finite at step 7"):
        run.step(0.0, 0.0)
    assert weight(task.network) == 3 and run.progress.step == 7


def test_the_time_limit_may_end_a_run_first(tmp_path):
    late = Progress(step=1, seconds=45.0)
    run = trainer(tmp_path)
    run.progress = late
    assert run.share() == 0.1
    limited = trainer(tmp_path, time_limit=1.0)
    limited.progress = late
    assert limited.share() == 0.75
    limited.progress = replace(late, step=9)
    assert limited.share() == 0.9
    limited.progress = replace(late, seconds=60.0)
    assert limited.run().progress.step == 1, "no step is done after the limit"


def test_seconds_before_a_checkpoint_count(tmp_path):
    run = trainer(tmp_path)
    run.progress.seconds = 45.0
    run.run()
    again = trainer(tmp_path)
    assert again.progress.step == 10 and again.progress.seconds >= 45


def test_the_rate_has_linear_warm_up_and_cosine_decay():
    rates = [warm_up_cosine(2.0, step, 4, share) for step, share in ((2, 0), (4, 0), (36, 0.5), (36, 1))]
    np.testing.assert_allclose(rates, [1, 2, 1, 0], atol=1e-12)
    assert warm_up_cosine(2.0, 1, 0, 0.0) == 2.0, "without warm-up"
    schedule = Optimisation(8, 2.0, 4, 1.0, 0.5, pretraining_steps=3)
    assert schedule.rate(3, 0.0) == 0.5, "warm-up begins after the pre-training"
    assert replace(schedule, decay="constant").rate(30, 1.0) == 2.0


def test_the_averages_warm_up_forgets_first_weights_sooner():
    averages = []
    for warm_up in (False, True):
        averaged, current = [torch.zeros(1)], [torch.ones(1)]
        schedule = Optimisation(8, 1.0, 0, 1.0, 0.9, averaging_warm_up=warm_up)
        schedule.average()(averaged, current, torch.tensor(2))
        averages.append(float(averaged[0]))
    assert averages == pytest.approx([0.1, 1 - 3 / 12])


def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(tmp_path):
    schedule = replace(CONSTANT, steps=9, warm_up=4, decay="cosine")
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = trainer(tmp_path / "whole", Square(schedule, noise=1.0)).run()

    class Interrupted(Square):
        def losses(self, module, batch, step):
            if step == 5:
                raise KeyboardInterrupt
            return super().losses(module, batch, step)

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "parts", Interrupted(schedule, noise=1.0), checkpoint_every=3).run()
    resumed = trainer(tmp_path / "parts", Square(schedule, noise=1.0), checkpoint_every=3)
    assert resumed.progress.step == 3
    result = resumed.run()

    assert result.progress.losses == whole.progress.losses and len(result.progress.losses) == 9
    assert weight(result.network) == weight(whole.network)


def test_weights_are_saved_at_checkpoints_only_where_they_are_ready(tmp_path):
    task = Square()
    trainer(tmp_path, task, checkpoint_every=4).run()
    assert [metadata["step"] for _, metadata in task.saved] == ["4", "8", "10"] and task.finished == 1
    metadata = task.saved[-1][1]
    assert json.loads(metadata["recipe"]) == {"gradient_norm": 1e9} and metadata["device"] == "cpu"
    checkpoint_path(tmp_path / "weights.safetensors").unlink()
    unready = Square(saves_at_checkpoints=False)
    trainer(tmp_path, unready, checkpoint_every=4).run()
    assert [metadata["step"] for _, metadata in unready.saved] == ["10"] and unready.finished == 1


def test_validation_sees_the_averaged_weights_at_its_interval_and_at_the_end(tmp_path):
    seen = []

    def validate(network):
        seen.append(weight(network))
        return {"weight": weight(network)}

    task = Square(validate_every=4, validate=validate)
    result = trainer(tmp_path, task).run()

    assert len(seen) == 3, "after 4, 8 and 10 steps"
    assert result.errors == {"weight": seen[-1]}
    assert seen[-1] == pytest.approx(weight(result.network))


def test_a_damaged_random_state_is_refused(tmp_path):
    trainer(tmp_path).run()
    path = checkpoint_path(tmp_path / "weights.safetensors")
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    progress = json.loads(metadata["progress"])
    save_file(tensors, path, {**metadata, "progress": json.dumps({**progress, "random_state": {}})})
    with pytest.raises(AvfaceError, match=r"damaged checkpoint .*random state"):
        trainer(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 0}, "threads=0 must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every=0 must be at least 1"),
        ({"report_every": -1}, "report_every=-1 must be at least 1"),
        ({"time_limit": 0.0}, r"time_limit=0\.0 must be above 0 minutes"),
        ({"time_limit": math.nan}, "time_limit=nan must be above 0 minutes"),
    ],
)
def test_run_configs_that_cannot_work_are_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        RunConfig(**changes)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    from avface.training.loop.trainer import begin_run

    (tmp_path / "file").touch()
    with pytest.raises(AvfaceError, match=r"can't be written .*name another --out"):
        begin_run(RunConfig(), tmp_path / "file" / "weights.safetensors")


def test_missing_packages_are_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightning_fabric", None)
    with pytest.raises(
        AvfaceError, match=r"needs lightning-fabric; install it with: pip install 'avface\[train\]'"
    ):
        launch_fabric("cpu", 1, 1, "32-true")
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(AvfaceError, match="needs tensorboard"):
        TensorBoard(tmp_path)
    assert loop_devices.SingleDevice("cpu").broadcast(3) == 3
