"""Attention of another library as a peer of `regard bench`: one process, one JSON line a request.

    serve.py openvino | torch

Answers first with its version and precisions, then to
  {"do": "prepare", shape..., "threads", "precision"}  makes random inputs        -> {"id"}
  {"do": "run", "id"}                                  computes attention once    -> {"seconds"}
  {"do": "forget"}                                     drops all inputs           -> {}
or with {"error": one line}. Inputs have the element type of the precision, so that no conversion is
timed. K and V are repeated for the query heads that share them where a library wants that.
"""
import json
import sys
import time


def shapes(r, kv_heads):
    return ((r["batch"], r["heads"], r["nq"], r["dk"]), (r["batch"], kv_heads, r["nk"], r["dk"]),
            (r["batch"], kv_heads, r["nk"], r["dv"]))


class OpenVino:
    def __init__(self):
        import numpy
        import openvino
        import openvino.opset13 as ops
        self.np, self.ov, self.ops, self.core = numpy, openvino, ops, openvino.Core()
        self.version = openvino.__version__.split("-")[0]
        able = self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precisions = ["f32"] + [p for p in ("bf16", "f16") if p.upper() in able]

    def prepare(self, r):
        if r["heads"] != r["kv"]:
            raise ValueError("timed where every query head has its own K and V head")
        kind = {"f32": self.ov.Type.f32, "bf16": self.ov.Type.bf16, "f16": self.ov.Type.f16}
        element = kind[r["precision"]]
        inputs, tensors = [], []
        for shape in shapes(r, r["heads"]):
            inputs.append(self.ops.parameter(list(shape), element))
            numbers = self.np.random.default_rng(1).standard_normal(shape, dtype=self.np.float32)
            if element == self.ov.Type.bf16:
                numbers = (numbers.view(self.np.uint32) >> 16).astype(self.np.uint16)
            elif element == self.ov.Type.f16:
                numbers = numbers.astype(self.np.float16)
            tensor = self.ov.Tensor(element, self.ov.Shape(shape))
            self.np.copyto(tensor.data.view(numbers.dtype), numbers)
            tensors.append(tensor)
        node = self.ops.scaled_dot_product_attention(*inputs, causal=r["causal"])
        model = self.core.compile_model(self.ov.Model([node], inputs), "CPU", {
            "INFERENCE_NUM_THREADS": r["threads"], "INFERENCE_PRECISION_HINT": r["precision"]})
        request = model.create_infer_request()
        for n, tensor in enumerate(tensors):
            request.set_input_tensor(n, tensor)
        return request.infer


class Torch:
    def __init__(self):
        import torch
        import torch.nn.functional as functional
        self.torch, self.functional = torch, functional
        self.version = torch.__version__
        self.precisions = ["f32", "bf16"]

    def prepare(self, r):
        kind = {"f32": self.torch.float32, "bf16": self.torch.bfloat16}[r["precision"]]
        q, k, v = (self.torch.randn(shape, dtype=kind) for shape in shapes(r, r["kv"]))
        attention = self.functional.scaled_dot_product_attention

        def run():
            self.torch.set_num_threads(r["threads"])
            with self.torch.no_grad():
                attention(q, k, v, is_causal=r["causal"], scale=r["scale"],
                          enable_gqa=r["heads"] != r["kv"])
        return run


def main():
    reply = lambda x: print(json.dumps(x), flush=True)
    try:
        peer = {"openvino": OpenVino, "torch": Torch}[sys.argv[1]]()
    except Exception as e:
        return reply({"error": f"{type(e).__name__}: {e}".splitlines()[0][:200]})
    reply({"version": peer.version, "precisions": peer.precisions})
    prepared = []
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "prepare":
                prepared.append(peer.prepare(request))
                prepared[-1]()
                reply({"id": len(prepared) - 1})
            elif request["do"] == "run":
                begin = time.perf_counter()
                prepared[request["id"]]()
                reply({"seconds": time.perf_counter() - begin})
            else:
                prepared.clear()
                reply({})
        except Exception as e:
            reply({"error": f"{type(e).__name__}: {e}".splitlines()[0][:200]})


if __name__ == "__main__":
    main()
