"""torch's CUDA tensors: plans equal to those of the same tensors on the CPU, attention close to it."""
import numpy as np
import pytest
import regard

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU here", allow_module_level=True)

METHODS = ["dense", "a_shape:n_init=16,n_local=200", "xattention:block=64,stride=8",
           "block_sparse:top_k=4,block=64", "moba:topk=3,chunk=64",
           "vertical_slash:vertical_size=60,slash_size=200", "flexprefill:min_budget=64,block=64"]


def tensors(kind, dtype, n=1000):
    made = regard.planted(kind, heads=4, kv_heads=2, tokens=n, dim=64)
    return [torch.from_numpy(np.array(x)).to(dtype) for x in made]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", sorted(regard.planted_kinds()))
@pytest.mark.parametrize("method", METHODS)
def test_plans_are_equal_and_attention_is_close(method, kind, dtype):
    host = tensors(kind, dtype)
    device = [x.cuda() for x in host]
    assert regard.plan(*host, method=method) == regard.plan(*device, method=method)
    out, lse = regard.attend(*device, method=method, dtype="f32")
    want, want_lse = regard.plan(*host, method=method).attend(*(x.float() for x in host))
    assert out.is_cuda and torch.allclose(out.cpu(), want, atol=0.03)
    assert torch.allclose(lse.cpu(), want_lse, atol=0.03)


@pytest.mark.parametrize("method", ["reformer", "hyper", "topk_channel", "routing_transformer"])
def test_plans_of_host_copies_run_there(method):
    host = tensors("band", torch.bfloat16)
    plan = regard.plan(*host, method=method)
    out, _ = plan.attend(*(x.cuda() for x in host), dtype="f32")
    want, _ = plan.attend(*(x.float() for x in host))
    assert out.is_cuda and torch.allclose(out.cpu(), want, atol=0.03)


def test_a_plan_waits_for_the_tensors_of_its_stream():
    with torch.cuda.stream(torch.cuda.Stream()):
        q, k, v = (x.cuda() for x in tensors("band", torch.bfloat16))
        for _ in range(20):
            torch.cuda._sleep(1_000_000)
            noise = torch.zeros_like(q)
            noise += q
            plan = regard.plan(noise, k, v, method="xattention")
        assert plan == regard.plan(*(x.cpu() for x in (q, k, v)), method="xattention")


def test_a_stage_without_a_kernel_refuses():
    with pytest.raises(regard.Error, match="GPU's memory; accepted"):
        regard.plan(*(x.cuda() for x in tensors("band", torch.bfloat16)), method="topk_channel")
