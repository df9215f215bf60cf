"""Data-parallel training through Hugging Face Accelerate: one process a GPU, or a CPU's core.

``accelerate launch`` starts the processes; they meet by NCCL on GPUs and by gloo on CPUs, and
torch's DistributedDataParallel averages the gradients while the backward pass still runs.

On a CPU two processes with a thread each finish a step in half the time of one process with two
threads: the network's operations are too small to be shared out one by one, and a thread that
waits for a busy neighbour stalls them all.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from noisegate_ros.errors import InputError, NoiseGateError, check_name

DEVICES = ("auto", "cpu", "cuda")
SHUTDOWN_S = 120
"""Seconds that the processes have to finish a step and save it when they are asked to stop."""

_FAILED, _INTERRUPTED = 2, 130  # the command line's exit codes
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_T = TypeVar("_T")
LOG = logging.getLogger(__name__)

Loss = Callable[[Any], Mapping[str, Tensor]]
"""Takes what a batch is drawn from, and returns losses by name; ``total`` is minimised."""


def chosen_device(name: str) -> torch.device:
    """Return where one process computes.

    Args:
        name: One of :data:`DEVICES`; ``auto`` is a GPU where there is one.

    Raises:
        InputError: if there is no such device.
    """
    check_name("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device is cuda, but torch finds no GPU here: install its CUDA build and a driver, "
            "or choose --device cpu"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def launched() -> int | None:
    """Return how many processes a launcher started, this one among them, or None without one.

    Raises:
        InputError: if `accelerate launch` was told of many processes and started only this one.
    """
    here = os.environ
    if "LOCAL_RANK" in here:
        return int(here.get("WORLD_SIZE", "1"))
    if "MASTER_ADDR" in here and "ACCELERATE_MIXED_PRECISION" in here:
        raise InputError(
            "`accelerate launch` started one process of several, as it does with --cpu and without "
            "--multi_gpu: give --multi_gpu --num_processes N, on CPUs too, or run "
            "`noisegate train --processes N`"
        )
    return None


def check_launch(count: int, device: str) -> None:
    """Check that processes could be started.

    Args:
        count: How many, at least 2.
        device: One of :data:`DEVICES`.

    Raises:
        InputError: if Accelerate is missing, or there are fewer GPUs.
    """
    where = chosen_device(device)
    _accelerate_launch()
    if where.type == "cuda" and count > torch.cuda.device_count():
        raise InputError(
            f"--processes is {count}, but this machine has {torch.cuda.device_count()} GPUs: "
            "choose at most as many, or --device cpu"
        )


def launch(program: Sequence[str], count: int) -> int:
    """Run a Python program in several processes of this machine by ``accelerate launch``.

    SIGINT and SIGTERM are passed on to them; they save, and are waited for.

    Args:
        program: The words after ``python``.
        count: Processes.

    Returns:
        The exit code: 0, 130 when interrupted, or the one of the first process that failed, which
        has said why.

    Raises:
        NoiseGateError: if a process was killed.
    """
    parser, start = _accelerate_launch()
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = ["--multi_gpu", "--num_processes", str(count), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]  # the trainer has its own
    options += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    arguments = parser().parse_args([*options, *program])
    arguments.standalone = True  # binds a free port itself; one looked up may be taken soon
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # warns of weights that are always used
    handlers = {number: signal.getsignal(number) for number in _PASSED_ON}
    logging.disable(logging.ERROR)  # the processes speak for themselves
    try:
        start(arguments)
    except SignalException:
        return _INTERRUPTED
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise NoiseGateError(
                f"training process {rank} of {count} was killed by signal {-failure.exitcode}: "
                "check the machine's memory; the same command goes on from the last saved state"
            ) from error
        return int(failure.exitcode)
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def leave(code: int) -> NoReturn:
    """End one of several processes, without the interpreter's own end.

    A thread of gloo's may still be letting go of the last tensors, and one that does so while the
    interpreter ends aborts the process, whose work is done and whose exit code is then lost.

    Args:
        code: The exit code.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _accelerate_launch() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Import the parser and the body of `accelerate launch`."""
    try:
        from accelerate.commands.launch import launch_command, launch_command_parser
    except ImportError as error:
        raise InputError(
            "Accelerate is not installed, and training in several processes needs it: pip install "
            "-r requirements/train.txt, or choose --processes 1"
        ) from error
    return launch_command_parser, launch_command


class Ranks:
    """The processes of one training run, and this one's place among them.

    Attributes:
        rank: This process, from 0.
        count: Processes in all.
        device: Where this one computes.

    Args:
        device: One of :data:`DEVICES`.
    """

    def __init__(self, device: str = "auto") -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        cpu = chosen_device(device).type == "cpu"
        if cpu and os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's name may lead anywhere
        ddp = DistributedDataParallelKwargs(
            find_unused_parameters=True,  # a batch without future frames leaves their weights out
            gradient_as_bucket_view=True,
        )
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[ddp])
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """Let the first process of every machine do something before the others do it."""
        ahead = self._accelerator.is_local_main_process
        if not ahead:
            with self.one_voice():
                _together(self._accelerator.wait_for_everyone)
        yield
        if ahead:
            _together(self._accelerator.wait_for_everyone)

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Leave it to the first process to say what goes wrong in all of them."""
        try:
            yield
        except NoiseGateError as error:
            if self.rank > 0:
                raise SystemExit(_FAILED) from error
            raise

    def shared(self, network: nn.Module, loss: Loss) -> Loss:
        """Return a loss whose gradients are averaged over all processes while they are computed.

        All start from the first one's weights and buffers. A parameter that only some processes
        used counts as zero in the others; one that nobody used stays without a gradient.

        Args:
            network: The network, on its device.
            loss: Its loss.
        """
        from accelerate.utils import broadcast

        _together(lambda: broadcast(list(network.buffers())))
        whole = _Whole(network, loss)
        shared: Loss = _together(lambda: self._accelerator.prepare_model(whole))
        return shared

    def backward(self, total: Tensor, stop: bool) -> bool:
        """Compute the averaged gradients of a shared loss.

        Args:
            total: What is minimised.
            stop: Whether this process was asked to stop.

        Returns:
            Whether any process was.
        """
        _together(total.backward)
        flag = torch.tensor([float(stop)], device=self.device)
        return bool(_together(lambda: self._accelerator.reduce(flag, "max")) > 0)

    def same(self, number: int) -> bool:
        """Return whether a number is the same in all processes; all get the same answer."""
        both = torch.tensor([number, -number], device=self.device)
        most, least = _together(lambda: self._accelerator.reduce(both, "max")).tolist()
        return bool(most == -least)

    def close(self) -> None:
        """Leave the group."""
        self._accelerator.end_training()


class _Whole(nn.Module):
    """A network whose forward pass is its loss, for DistributedDataParallel.

    It holds the parameters only: buffers would be sent at every step, and they never change.
    """

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.weights = nn.ParameterList(network.parameters())
        self.loss = loss

    def forward(self, given: Any) -> dict[str, Tensor]:
        return dict(self.loss(given))


def _together(call: Callable[[], _T]) -> _T:
    """Do what all processes do together.

    Raises:
        NoiseGateError: if it failed, most likely because another one is gone.
    """
    try:
        return call()
    except RuntimeError as error:
        LOG.debug("a step of all processes failed", exc_info=True)
        raise NoiseGateError(
            f"the training processes lost each other ({str(error).partition(chr(10))[0]}): see "
            "what the others said; the same command goes on from the last saved state"
        ) from error
