import pytest
import torch

from hf_matryoshka.modeling.mamba_kernels import scan
from hf_matryoshka.modeling.ssd_scan import _carry, _carry_traced, ssd_scan


def inputs(length=37, batch=2, heads=3, head_dim=4, state_size=5):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    x, dt = draw(batch, length, heads, head_dim), torch.rand(batch, length, heads, generator=generator)
    return (
        x,
        dt,
        -torch.rand(heads, generator=generator),
        draw(batch, length, state_size),
        draw(batch, length, state_size),
    )


def by_token(x, dt, decay, b, c, segments=None, state=None):
    """The recurrence as it is written, token by token."""
    batch, length, heads, head_dim = x.shape
    state = x.new_zeros(batch, heads, head_dim, b.shape[-1]) if state is None else state.clone()
    outputs = []
    for step in range(length):
        if segments is not None and step:
            state = state * (segments[:, step] == segments[:, step - 1])[:, None, None, None]
        state = state * torch.exp(dt[:, step] * decay)[..., None, None]
        state = state + (dt[:, step, :, None] * x[:, step])[..., None] * b[:, step, None, None]
        outputs.append(torch.einsum("bhpn,bn->bhp", state, c[:, step]))
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_the_scan_is_the_recurrence(chunk, packed, started):
    parts = inputs()
    segments = None
    if packed:
        segments = torch.zeros(2, 37, dtype=torch.long)
        segments[0, 5:], segments[0, 6:], segments[0, 30:], segments[1, 16:] = 1, 2, 3, 1
    state = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) if started else None
    expected = by_token(*parts, segments, state)
    for actual, wanted in zip(ssd_scan(*parts, chunk, segments, state), expected, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(scan(*parts, chunk, segments, state)[0], ssd_scan(*parts, chunk, segments, state)[0])


def test_a_step_of_size_zero_changes_nothing():
    x, dt, decay, b, c = inputs()
    dt[:, 20:] = 0
    y, state = ssd_scan(x, dt, decay, b, c, 8)
    torch.testing.assert_close(state, ssd_scan(*(part[:, :20] for part in (x, dt)), decay, b[:, :20], c[:, :20], 8)[1])


def test_large_steps_do_not_overflow():
    x, dt, decay, b, c = inputs()
    parts = [part.requires_grad_() for part in (x, 1000 * dt, decay, b, c)]
    y, state = ssd_scan(*parts, 8)
    assert torch.isfinite(y).all() and torch.isfinite(state).all()
    gradients = torch.autograd.grad(y.sum(), parts)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_traced_form_carries_the_same_states():
    generator = torch.Generator().manual_seed(0)
    state, added = torch.randn(2, 5, 3, 4, generator=generator), torch.randn(2, 6, 5, 3, 4, generator=generator)
    log_kept = -torch.rand(2, 6, 3, generator=generator)
    log_kept[0, 2] = -torch.inf  # a new text
    for actual, wanted in zip(_carry_traced(state, added, log_kept), _carry(state, added, log_kept), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-6, rtol=1e-5)
