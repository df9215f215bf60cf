"""Convert the denoising step of a model with TensorRT for RTX, without a GPU.

Every operator must find a converter, and all of them must end in one engine. Nothing is executed:
what this cannot show is whether the engine is right or fast, which `noisegate compile` measures
where there is a GPU. Run by `make test-trt`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import no_gpu

from noisegate_ros.engine.components import make_component, place, step_name
from noisegate_ros.engine.exported import export
from noisegate_ros.engine.tensorrt import TensorRt, contents, convert
from noisegate_ros.wam.checkpoint import load_model


def main() -> int:
    """Convert in every precision; exit code 1 if one does not end in one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/tiny"))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "fp16"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    module = no_gpu.torch_tensorrt()
    model = load_model(args.model)
    settings = TensorRt().settings({"optimization_level": 3}, 1, torch.device("cpu"))
    for precision in args.precision:
        placed = place(model, precision, torch.device("cpu"))
        component = make_component(step_name(model.config.frames), placed)
        start = time.monotonic()
        program = export(component)
        converted = convert(module, program, list(component.inputs.values()), settings)
        engines, left = contents(converted)
        operators = sum(node.op == "call_function" for node in program.graph.nodes)
        plans = [m.plan for m in converted.modules() if isinstance(m, no_gpu.Plan)]
        if len(plans) != 1 or not plans[0]:
            raise SystemExit(f"TensorRT built {len(plans)} engines: expected one")
        print(
            f"{args.model.name} {component.name} {precision}: {operators} operators in {engines} "
            f"engine of {len(plans[0]) / 2**20:.1f} MiB, {len(left)} left to torch, "
            f"{time.monotonic() - start:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
