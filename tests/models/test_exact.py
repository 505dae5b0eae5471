"""Kernels against dense matrix exponentials, gradients against differences and against the definition."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from ssmtheory.inits import hippo
from ssmtheory.inits.base import generators, lecun_normal
from ssmtheory.inits.legs import legs_modes
from ssmtheory.models.lti_layers import TRAINABLE, VARIANTS, LTILayer, make_layer

N, LENGTH = 16, 64


def normal_part(size: int) -> np.ndarray:
    """A_N = A_H + P P^T of HiPPO-LegS, from its entries."""
    A, B = hippo.legs(size)
    return A + np.outer(B, B) / 2


def held(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp(A) and the integral of exp(t A) B over [0, 1]: the hold, with step 1."""
    n, m = B.shape
    block = scipy.linalg.expm(np.block([[A, B], [np.zeros((m, n + m))]]))
    return block[:n, :n], block[:n, n:]


def test_s4d_is_the_exponential_of_the_dense_normal_part() -> None:
    """K_k = c exp(k Delta A_N) (hold of B/2), with real dense A_N, B and c = 2 Re(C V*)."""
    layer = make_layer("s4d:discretization=zoh", 3, N, 2, 1e-3, 1e-1)
    V = legs_modes(N)[1][:, : N // 2]
    rows = 2 * np.real(torch.view_as_complex(layer.C).detach().numpy() @ V.conj().T)
    K = layer.kernel(LENGTH).detach().numpy()
    A, B = normal_part(N), hippo.legs(N)[1][:, None] / 2
    for h, step in enumerate(layer.steps.tolist()):
        state = held(step * A, step * B)[1][:, 0]
        expected = [rows[h] @ scipy.linalg.expm(k * step * A) @ state for k in range(LENGTH)]
        np.testing.assert_allclose(K[h], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("blocks", [1, 2])
def test_s5_is_the_exponential_of_dense_blocks(blocks: int) -> None:
    """Real B and C drawn as the layer's are; a mode's own step makes Delta a matrix with the eigenvectors of A."""
    features, size = 3, N // blocks
    layer = make_layer(f"s5:blocks={blocks}", features, N, 4, 1e-3, 1e-1)
    rng_b, rng_c = generators(4, "B", "C")
    B, C = lecun_normal(rng_b, (N, features)), lecun_normal(rng_c, (features, N))
    heights, V = np.linalg.eigh(-1j * (normal_part(size) + np.eye(size) / 2))
    # stored: the modes of negative imaginary part, by falling size of it or rising: each finds its step by its pole
    stored, steps = layer.poles.numpy(), layer.steps.numpy()
    M, Delta = np.zeros((N, N)), np.zeros((N, N))
    for j in range(blocks):
        at = slice(j * size, (j + 1) * size)
        part = slice(j * size // 2, (j + 1) * size // 2)
        own = np.array([steps[part][np.argmin(np.abs(np.abs(stored[part].imag) - abs(y)))] for y in heights])
        Delta[at, at] = np.real((V * own) @ V.conj().T)
        M[at, at] = np.real((V * (own * (-0.5 + 1j * heights))) @ V.conj().T)
    state = held(M, Delta @ B)[1]
    expected = np.stack([C @ scipy.linalg.expm(k * M) @ state for k in range(LENGTH)], axis=-1)
    K = layer.kernel(LENGTH).detach().numpy()
    np.testing.assert_allclose(K, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("rho", [8.0, 40.0])
def test_blocks_of_hippo_rho_are_the_exponential_of_its_dense_matrix(rho: float) -> None:
    """A = A_N - theta P P^T in each block, a = -1/rho, theta = (1 - a)/(1 + a); real B and C as drawn; one step."""
    features, size, step = 3, 8, 0.05
    layer = make_layer(f"s5-rho:blocks=2,rho={rho},sign=negative", features, 16, 4, step, step)
    rng_b, rng_c = generators(4, "B", "C")
    B, C = lecun_normal(rng_b, (16, features)), lecun_normal(rng_c, (features, 16))
    P = hippo.legs(size)[1] / np.sqrt(2)
    theta = (1 + 1 / rho) / (1 - 1 / rho)
    A = np.kron(np.eye(2), normal_part(size) - theta * np.outer(P, P))
    state = held(step * A, step * B)[1]
    expected = np.stack([C @ scipy.linalg.expm(k * step * A) @ state for k in range(LENGTH)], axis=-1)
    K = layer.kernel(LENGTH).detach().numpy()
    np.testing.assert_allclose(K, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def dense_s4(layer: LTILayer, h: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    V = legs_modes(size)[1][:, : size // 2]
    A, B = hippo.legs(size)
    return A, B, 2 * np.real(torch.view_as_complex(layer.C)[h].detach().numpy() @ V.conj().T)


@pytest.mark.parametrize("method", ["cauchy", "response"])
def test_s4_is_the_dense_bilinear_recurrence(method: str) -> None:
    layer = make_layer("s4", 3, N, 2, 1e-3, 1e-1)
    K = layer.kernel(LENGTH, method=method).detach().numpy()
    for h, step in enumerate(layer.steps.tolist()):
        A, B, row = dense_s4(layer, h, N)
        left = np.eye(N) - step / 2 * A
        bar, state = np.linalg.solve(left, np.eye(N) + step / 2 * A), np.linalg.solve(left, step * B)
        expected = [row @ np.linalg.matrix_power(bar, k) @ state for k in range(LENGTH)]
        np.testing.assert_allclose(K[h], expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["cauchy", "response"])
def test_s4_tends_to_the_matrix_exponential(method: str) -> None:
    """The Cauchy kernel at steps h, h/2, ..., extrapolated to step 0, is c exp(tA) B of dense LegS to 1e-10.

    With X = h A/2, (I - X)^{-1} = (I + A-bar)/2, so that K_k/h is the mean of g_k and g_{k+1}, g_k = c A-bar^k B. At
    fixed t = k h the error of g is a series in h^2.
    """
    size, first, levels = 8, 1 / 128, 7
    start = make_layer("s4", 1, size, 5)
    A, B, row = dense_s4(start, 0, size)
    ticks = np.arange(1, 17)
    table = []
    for level in range(levels):
        fine = 2**level
        kept = dataclasses.replace(start.snapshot(), steps=np.array([first / fine]))
        K = LTILayer(kept).kernel(ticks[-1] * fine, method=method)[0].detach().numpy() * fine / first
        g = [row @ B]
        for value in K:
            g.append(2 * value - g[-1])
        table.append(np.array(g)[ticks * fine])
    for order in range(1, levels):
        table = [fine + (fine - coarse) / (4**order - 1) for coarse, fine in itertools.pairwise(table)]
    expected = np.array([row @ scipy.linalg.expm(t * A) @ B for t in ticks * first])
    np.testing.assert_allclose(table[0], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def differentiable(case: str, **options) -> tuple[LTILayer, dict[str, torch.Tensor]]:
    if case == "s4-legt":
        options["real_part"] = "free"
    layer = make_layer(case, 2, 4, 1, 0.05, 0.3, train=TRAINABLE, **options)
    return layer, {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()}


@pytest.mark.parametrize("mode", ["convolution", "recurrence"])
@pytest.mark.parametrize("case", [*VARIANTS, "hippo-rho:rho=3,normal=true", "s4d:discretization=zoh"])
def test_every_gradient_is_that_of_differences(case: str, mode: str) -> None:
    layer, values = differentiable(case, mode=mode)
    names = tuple(values)
    u = torch.randn(2, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def call(u, *tensors):
        return torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), (u,))

    assert torch.autograd.gradcheck(call, (u, *values.values()), fast_mode=True)


@pytest.mark.parametrize("case", ["s4", "s4d", "s4d:discretization=zoh", "dss", "hippo-rho", "s5", "lru"])
def test_gradients_are_those_of_the_definition(case: str) -> None:
    """Autograd of K_k = C A-bar^k B-bar, written out in complex128 from the parameters, power by power."""
    layer, values = differentiable(case)
    length = 40
    weight = torch.randn(2, length, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def definition(v):
        C, B = torch.view_as_complex(v["C"]), torch.view_as_complex(v["B"])
        poles = torch.complex(-v["log_decay"].exp(), v["frequency"])
        if "log_steps" in v:
            steps = v["log_steps"].exp()
            steps = steps if layer.scope == "layer" else steps[:, None]
        if case == "s4":
            out = []
            P = torch.view_as_complex(v["P"])
            for h in range(2):
                full = [torch.cat([x, x.conj()]) for x in (poles[h], P[h], B[h], C[h])]
                A = torch.diag(full[0]) - full[1] @ full[1].mH
                left = torch.eye(4) - steps[h] / 2 * A
                bar = torch.linalg.inv(left) @ (torch.eye(4) + steps[h] / 2 * A)
                x = torch.linalg.inv(left) @ (steps[h] * full[2])
                rows = []
                for _ in range(length):
                    rows.append((full[3] @ x).real)
                    x = bar @ x
                out.append(torch.stack(rows))
            return torch.stack(out)
        if case == "lru":
            w, bar = poles.exp(), v["log_gain"].exp()[:, None] * B
        elif layer.discretization == "bilinear_s4":
            w = (1 + steps * poles / 2) / (1 - steps * poles / 2)
            bar = steps / (1 - steps * poles / 2) * B
        else:
            w = (steps * poles).exp()
            factor = (w - 1) / poles
            if case == "dss":
                factor = 1 / torch.stack([w**k for k in range(length)]).sum(0)
            bar = (factor[:, None] if layer.scope == "layer" else factor) * B
        rows, x = [], bar
        scale = 1 if layer.readout == "real" else 2
        for _ in range(length):
            # from input 0 to both outputs, where there is one system
            rows.append(scale * ((C @ x[:, 0]).real if layer.scope == "layer" else (C * x).sum(-1).real))
            x = (w[:, None] if layer.scope == "layer" else w) * x
        return torch.stack(rows, dim=-1)

    expected = torch.autograd.grad((weight * definition(values)).sum(), list(values.values()), allow_unused=True)
    own = dict(layer.named_parameters())
    K = layer.kernel(length)
    K = K[:, 0] if layer.scope == "layer" else K
    found = torch.autograd.grad((weight * K).sum(), list(own.values()), allow_unused=True)
    # DSS keeps its quotient finite by a term of 1e-7, of which the quotient is up to 1/|sum|^2 large
    tolerance = 1e-5 if case == "dss" else 1e-9
    for name, got, wanted in zip(values, found, expected, strict=True):
        if wanted is None:
            assert name == "D"
            continue
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * wanted.abs().max().item(), msg=name)
