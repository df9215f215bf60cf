"""Convert the parts of a model with TensorRT for RTX, without a GPU.

Every operator must find a converter, and all of a part's must end in one engine. Nothing is
executed: what this cannot show is whether the engine is right or fast, which `noisegate compile`
measures where there is a GPU. Run by `make test-trt`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import no_gpu

from noisegate_ros.engine.components import CONTEXT, ENCODER, make_component, place, step_name
from noisegate_ros.engine.exported import export
from noisegate_ros.engine.tensorrt import TensorRt, contents, convert
from noisegate_ros.wam.checkpoint import load_model


def main() -> int:
    """Convert in every precision; a part that does not end in one engine ends the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "fp16"])
    parser.add_argument("--parts", nargs="+", help="encoder, context, step2 (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    module = no_gpu.torch_tensorrt()
    model = load_model(args.model)
    every = [ENCODER, CONTEXT, step_name(model.config.frames)]
    settings = TensorRt().settings({"optimization_level": 3}, 1, torch.device("cpu"))
    for number, precision in enumerate(args.precision):
        placed = place(model, precision, torch.device("cpu"))
        for name in args.parts or (every if number == 0 else every[-1:]):
            component = make_component(name, placed)
            start = time.monotonic()
            program = export(component)
            converted = convert(module, program, list(component.inputs.values()), settings)
            _, left = contents(converted)
            operators = sum(node.op == "call_function" for node in program.graph.nodes)
            plans = [m.plan for m in converted.modules() if isinstance(m, no_gpu.Plan)]
            if len(plans) != 1 or not plans[0]:
                raise SystemExit(f"TensorRT built {len(plans)} engines of {name}: expected one")
            print(
                f"{args.model.name} {name} {precision}: {operators} operators in 1 engine of "
                f"{len(plans[0]) / 2**20:.1f} MiB, {len(left)} left to torch, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
