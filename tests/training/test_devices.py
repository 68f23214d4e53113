"""Where training and prediction run, and what is said of GPUs that are missing, too few or too small."""

import pytest
import torch

from bothways.errors import BothwaysError, OptionError
from bothways.inference.predictor import load
from bothways.jobs.finetune import finetune
from bothways.jobs.pretrain import pretrain
from bothways.model import forward
from bothways.model.forward import device_of
from bothways.training.devices import joined
from bothways.training.finetune import FineTuning
from bothways.training.train import train
from tests.tiny import ROWS, write_base
from tests.training.test_loop import QUIET, RECIPE, setup

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 4 GiB")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs PyTorch finds."""

    def found(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return found


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cpu", 1, "cpu"), ("cuda", 2, "cuda")],
)
def test_a_device_is_a_gpu_if_one_is_there_and_wanted(gpus, name, number, expected):
    gpus(number)
    assert device_of(name).type == expected
    with joined(name) as devices:
        assert (devices.device.type, devices.size, devices.rank) == (expected, 1, 0)


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "CPU", ""])
def test_another_device_is_refused(name):
    with pytest.raises(OptionError, match=f"device is '{name}', expected one of auto, cpu, cuda"):
        device_of(name)


def trained(model, job, reporter):
    work = FineTuning(model, job)
    return train(work, work.plan(), reporter)


def test_a_gpu_that_is_not_there_is_refused_and_nothing_is_written(gpus, base, tmp_path):
    gpus(0)
    out = tmp_path / "out"
    with pytest.raises(OptionError, match=r"device is 'cuda', but PyTorch finds no GPU here.*or use 'cpu'"):
        finetune("classify", ROWS, ROWS, base=base, out=out, device="cuda")
    (tmp_path / "corpus.txt").write_text("A sentence. Another one.\n")
    with pytest.raises(OptionError, match=r"device is 'cuda', but PyTorch finds no GPU here"):
        pretrain([tmp_path / "corpus.txt"], base=base, out=out, device="cuda", max_length="16")
    assert not out.exists()


def test_more_processes_than_gpus_are_refused(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    message = r"torchrun started 4 processes here, and there are 2 GPU\(s\).*--nproc-per-node 2, or train on the CPU"
    with pytest.raises(OptionError, match=message), joined():
        pass
    with joined("cpu") as devices:
        assert devices.device.type == "cpu"
    gpus(4)
    with joined() as devices:
        assert devices.device == torch.device("cuda", 3)


def test_a_gpu_without_memory_says_the_batch_and_what_to_lower(base, tmp_path, monkeypatch):
    def full(*_):
        raise FULL

    model, job = setup(base, tmp_path / "run", RECIPE)
    monkeypatch.setattr("bothways.training.finetune.forward", full)
    with pytest.raises(BothwaysError) as found:
        trained(model, job, QUIET)
    longest = max(len(window.ids) for window in job.windows)
    assert str(found.value).startswith(
        f"the GPU has too little memory for a batch of 4 windows of up to {longest} tokens; lower --batch-size "
        "(and raise --gradient-accumulation-steps by the same factor), or --max-length"
    )
    assert "\n" not in str(found.value)


def test_so_does_pretraining(base, tmp_path, monkeypatch):
    def full(*_, **__):
        raise FULL

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"A sentence of {number} words. It is short.\n\n" * 3 for number in range(60)))
    monkeypatch.setattr("bothways.training.pretrain.Pretraining._losses", full)
    message = r"for a batch of 4 sequences of 16 tokens; lower --batch-size"
    options = {"batch_size": 8, "gradient_accumulation_steps": 2, "max_length": "16", "steps": 2}
    with pytest.raises(BothwaysError, match=message):
        pretrain([corpus], base=base, out=tmp_path / "out", **options)


def test_so_does_a_prediction(base, tmp_path, monkeypatch):
    def full(*_):
        raise FULL

    model = load(base, task="embed", engine="torch", precision="fp32")
    monkeypatch.setattr("bothways.inference.engines.torch.forward", full)
    with pytest.raises(BothwaysError, match=r"a batch of 1 windows of up to 3 tokens; lower max_length, or predict"):
        model(["a"])


def test_the_precision_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(forward, "multiplies_bf16", lambda: False)
    assert forward.best_precision(torch.device("cuda")) == "bf16"
    assert forward.best_precision(torch.device("cpu")) == "fp32"
