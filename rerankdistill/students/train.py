"""The only training loop: Hugging Face's trainer around a student and a loss.

torchrun, accelerate, checkpoints, schedules and trackers are the trainer's; what is ours is what one step computes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerankdistill import devices
from rerankdistill.cards import Card
from rerankdistill.contracts import DevEvaluation, Loss, Scheduled
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.students.batch import Budget, ListBatch
from rerankdistill.students.compiling import compiled
from rerankdistill.students.data import Schedule, StageData
from rerankdistill.students.layerwise import InnerBatch
from rerankdistill.students.together import Blocks, grown, processes, summed

StepReport = Callable[[int, int, dict[str, float]], None]
"""``(steps done, steps in all, latest figures)``."""

KEPT_ON_CPU, KEPT_ON_GPU = 16_384, 131_072
"""A 6-layer encoder keeps about 0.2 MB for each token."""


class StageOptions(Card):
    """How one stage is optimised. ``batch`` counts queries (or texts, for a stage on vectors) a step and device."""

    steps: int = 200
    batch: int = 16
    learning_rate: float = 5e-5
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; it then falls linearly to zero."""
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    token_budget: int = 8192
    """Padded tokens that are encoded at once: bounds memory, changes no result."""
    kept_tokens: int = 0
    """Padded tokens of a step whose activations are kept; where documents (or pairs) have more, they are encoded twice
    and memory no longer grows with the list. 0: 16,384 on a CPU, 131,072 on a GPU."""
    evaluate_every: int = 0
    """Steps between dev evaluations (and checkpoints); 0: four times in all."""
    patience: int = 0
    """Stop after so many dev evaluations without a gain; 0: never."""
    keep_best: bool = True
    """Keep the weights of the best dev evaluation; False: the last ones."""
    trackers: tuple[str, ...] = ()
    gather: bool = True
    """Under ``torchrun``, for students that compare vectors: the documents of all processes are every query's
    negatives, as if one process had read the whole batch. ``False``: a process knows its own."""
    compile: bool = False
    """Compile the network (``torch.compile``), which takes minutes at the start; for long trainings on a GPU."""

    def budget(self, device: str) -> Budget:
        """What a step may hold on a device."""
        return Budget(self.token_budget, self.kept_tokens or (KEPT_ON_CPU if device == "cpu" else KEPT_ON_GPU))


@dataclass
class TrainResult:
    """What happened: steps taken, the dev figure of each evaluation, the best, the loss curve."""

    steps: int
    best: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    student: Any,
    data: StageData,
    loss: Loss,
    options: StageOptions,
    folder: Path,
    seed: int,
    dev: DevEvaluation | None = None,
    report: StepReport | None = None,
) -> TrainResult:
    """Train a student in place through one stage, resuming from the last whole checkpoint in ``folder``.

    Args:
        student: a kind of student; ``network`` is trained. What it has to ``prepare`` it does first.
        folder: for checkpoints; the caller deletes it when the student is saved.
        dev: measured every ``evaluate_every`` steps; decides which weights are kept and when to stop.

    Raises:
        DataError: nothing to learn from, or a loss that is not finite.
    """
    if not data.count:
        raise DataError("no example to learn from", fix="check the queries and the candidates")
    started = last_checkpoint(folder)
    if started is None and hasattr(student, "prepare"):
        student.prepare(data)
    trainer = _trainer(student, data, loss, options, folder, seed, dev, report)
    student.ready(training=True)
    with compiled(student.network) if options.compile else nullcontext():
        trainer.train(resume_from_checkpoint=str(started) if started else None)
    student.ready(training=False)
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_dev" in entry]
    return TrainResult(trainer.state.global_step, trainer.state.best_metric, history)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill can leave a torn one behind it."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))  # the trainer writes it last
        except (OSError, ValueError):
            continue
        return path
    return None


def _arguments(options: StageOptions, folder: Path, seed: int, device: str, evaluates: bool) -> Any:
    from transformers import TrainingArguments

    every = options.evaluate_every or max(1, options.steps // 4)
    strategy = "steps" if evaluates else "no"
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        warmup_steps=round(options.warmup * options.steps),
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        seed=seed,
        data_seed=seed,
        use_cpu=device == "cpu",
        eval_strategy=strategy,
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=evaluates and options.keep_best,
        metric_for_best_model="eval_dev" if evaluates else None,
        greater_is_better=True if evaluates else None,
        logging_steps=_interval(options.steps, every),
        report_to=list(options.trackers) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        restore_callback_states_from_checkpoint=True,
    )


def _interval(steps: int, every: int) -> int:
    """Steps between points of the loss curve: about fifty in all, none of them across a checkpoint, so that a resumed
    training draws the curve of an undisturbed one."""
    wanted = min(max(1, steps // 50), every)
    return next(size for size in range(wanted, 0, -1) if every % size == 0)


def _trainer(
    student: Any,
    data: StageData,
    loss: Loss,
    options: StageOptions,
    folder: Path,
    seed: int,
    dev: DevEvaluation | None,
    report: StepReport | None,
) -> Any:
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Step(torch.nn.Module):
        """One step as a module, so that a wrapper for many devices sees a plain forward."""

        def __init__(self) -> None:
            super().__init__()
            self.network = student.network
            self.beside = data.beside(student) if hasattr(data, "beside") else None

        def forward(self, batch: Any, share_done: float) -> Any:
            now = loss.at(share_done) if isinstance(loss, Scheduled) else loss
            if hasattr(student, "share_done"):
                student.share_done = share_done
            value = step_loss(student, now, batch, options.budget(student.device.name))
            return grown(value, processes()) if together else value

        def state_dict(self, *args: Any, **more: Any) -> dict[str, Any]:  # type: ignore[override]
            return trained(self, super().state_dict(*args, **more))

        def load_state_dict(self, state_dict: Any, *_: Any, **__: Any) -> Any:
            found = super().load_state_dict(state_dict, strict=False)
            return found._replace(missing_keys=[name for name in found.missing_keys if name in self.state_dict()])

    class DistillTrainer(Trainer):  # type: ignore[misc]
        """The trainer with our step, our order and our dev evaluation."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            value = model(inputs["batch"], self.state.global_step / max(self.args.max_steps, 1))
            if not torch.isfinite(value):
                raise DataError(
                    f"the loss is {value.item()} at step {self.state.global_step}",
                    fix="lower the learning rate, or check the teacher's scores",
                )
            return (value, {}) if return_outputs else value

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)  # the schedule is shuffled already

        control: Any

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            figures = {"eval_dev": self._measure()}
            self.log(figures)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
            return figures

        def _measure(self) -> float:
            student.ready(training=False)
            with torch.inference_mode():
                figure = dev(student) if dev else 0.0
            student.ready(training=True)
            return figure

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if report:
                latest: dict[str, float] = next((e for e in reversed(state.log_history) if "loss" in e), {})
                report(state.global_step, args.max_steps, latest)

    callbacks: list[Any] = [Reporter()]
    if dev and options.patience:
        callbacks.append(EarlyStoppingCallback(options.patience))
    total = options.steps * options.batch * options.accumulate
    schedule: Any = Schedule(data, total * devices.world(), seed)
    collate = data.collate
    together = _compare_together(student, data, options)
    if together:
        schedule = Blocks(schedule, options.batch * devices.world(), data.collate)
        collate = schedule.collate
    trainer = DistillTrainer(
        model=Step(),
        args=_arguments(options, folder, seed, student.device.name.split(":")[0], dev is not None),
        train_dataset=schedule,
        eval_dataset=schedule if dev else None,
        data_collator=lambda items: {"batch": collate(items)},
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _compare_together(student: Any, data: StageData, options: StageOptions) -> bool:
    """Whether all processes lay out one batch; the student is told."""
    able = hasattr(student, "together") and not hasattr(data, "beside")
    together = options.gather and devices.world() > 1 and able
    if able:
        student.together = together
    return together


def trained(module: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds: neither what is frozen, which is where it came from, nor a tied weight twice."""
    frozen = {name for name, each in module.named_parameters(remove_duplicate=False) if not each.requires_grad}
    seen: dict[Any, str] = {}
    for name, value in weights.items():
        if name not in frozen:
            seen.setdefault((value.data_ptr(), value.shape) if value.numel() else name, name)
    return {name: weights[name] for name in seen.values()}


def step_loss(student: Any, loss: Loss, batch: Any, budget: Budget) -> Any:
    """The loss of one batch: a scalar tensor. A student that is read in several ways pays for each by its weight.

    Where several processes each read a batch of their own, the mean of their losses is that of one that had read all.
    """
    import torch

    from rerankdistill.contracts import Scores

    alone = processes() == 1 or getattr(student, "together", False)
    if isinstance(batch, InnerBatch):
        return _mean(loss, batch.scores(student, budget), alone)
    if not isinstance(batch, ListBatch):
        return _mean(loss, Scores(torch.empty(0), vectors=student.vectors(batch, budget)), alone)
    readings = student.read(batch, budget, loss.needs)
    losses = [_mean(loss, batch.scores(reading), alone) for reading in readings]
    own = hasattr(student, "weigh")  # it knows what they are worth once it has seen them
    weights = student.weigh(losses) if own else [reading.weight for reading in readings]
    total: Any = sum(weight * each for weight, each in zip(weights, losses, strict=True))
    for cost in (reading.cost for reading in readings if reading.cost is not None):
        total = total + cost
    return total


def _mean(loss: Loss, scores: Any, alone: bool) -> Any:
    """Sum over weight; not ``alone``, over the mean of all processes' weights, of every term of the loss by itself."""
    if not alone and hasattr(loss, "parts"):
        parts = [(part.factor * part.sum, part.weight) for part in loss.parts(scores)]
    else:
        parts = [loss(scores)]
    value: Any = 0.0
    weights = [weight if alone else summed(weight) / processes() for _, weight in parts]
    if not any(map(float, weights)):
        text = "a batch taught nothing: no list in it has two scored documents, or a paced student has solved them all"
        warnings.warn(text, RerankDistillWarning, 3)
    for (total, _), weight in zip(parts, weights, strict=True):
        value = value + (total / weight if float(weight) else total * 0.0)
    return value


def loss_curve(history: Sequence[dict[str, float]]) -> list[tuple[int, float]]:
    """``(step, loss)`` of a training's history."""
    return [(int(entry["step"]), entry["loss"]) for entry in history if "loss" in entry]
