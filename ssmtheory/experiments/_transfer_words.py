"""The verdict of `transfer_convergence`: sentences from its dataset, each number with how it is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.experiments._transfer_schema import CERTIFIED, EVIDENCE

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["discrete", "frontier", "gaps", "pseudospectrum", "regression", "spikes", "tightness", "weak"]


_MARKS = {0: "measured", 1: "bracketed", 2: "certified", 3: "proved"}


def _group(tree: xr.DataTree, name: str) -> Any:
    return tree.children[name].to_dataset()


def _labels(data: Any) -> list[str]:
    return [str(label) for label in data["init"].values]


def _shown(value: float, digits: int = 3) -> str:
    return f"{float(value):.{digits}g}"


def _digits(lower: float, upper: float, most: int = 12) -> str:
    """The decimals that both ends of a bracket share, with dots."""
    a, b = f"{lower:.{most}f}", f"{upper:.{most}f}"
    k = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    return a if k == len(a) else f"{a[:k]}..." if k > a.index(".") + 2 else f"[{_shown(lower)}, {_shown(upper)}]"


def _sizes(data: Any) -> list[int]:
    return [int(N) for N in data["state_dim"].values]


def gaps(tree: xr.DataTree) -> list[str]:
    """The headline: sup of the S4D gap, then PTD and HiPPO-rho beside it."""
    data = _group(tree, "gaps")
    labels, sizes = _labels(data), _sizes(data)
    e0 = [int(n) for n in data["output"].values].index(0) if 0 in data["output"].values else 0
    n = int(data["output"].values[e0])
    lines = []
    if "s4d-legs" in labels:
        row = data.sel(init="s4d-legs")
        last = row.isel(state_dim=-1, output=e0)
        limit = 2 * math.sqrt(2 * n + 1) / math.pi
        name = "2/pi" if n == 0 else f"2 sqrt({2 * n + 1})/pi"
        lines.append(
            f"sup over all real omega of |G_LegS - G_S4D| for C = e_{n} tends to {name} = {limit:.5f}, not to 0: at "
            f"N = {sizes[-1]} it lies in [{float(last['lower']):.13f}, {float(last['upper']):.13f}] "
            f"({EVIDENCE[int(last['evidence'])]}), reached at omega = {float(last['omega']):.3f}, near "
            f"N^2/pi - pi/6 = {sizes[-1] ** 2 / math.pi - math.pi / 6:.3f}."
        )
        worst = row.isel(state_dim=-1)
        lines.append(
            f"For the worst unit C it is {float(worst['worst_sup']):.6g} ({EVIDENCE[int(worst['worst_evidence'])]}), "
            f"{float(worst['worst_sup']) / (2 * sizes[-1] / math.pi):.6f} of 2N/pi."
        )
    others = [label for label in labels if label != "s4d-legs"]
    lines += _table(data, labels, sizes, e0, n)
    for label in others:
        lines.append(_bound_sentence(data.sel(init=label), label, sizes))
    if "s4d-legs" in labels:
        row = data.sel(init="s4d-legs").isel(output=e0)
        exact, measured = row["l2_exact"].values, row["l2_gap"].values
        lines.append(
            f"L2 distance of the kernels of S4D and LegS, output {n}: {_shown(exact[-1], 6)} at N = {sizes[-1]} by the "
            f"exact formula (proved), by quadrature within {_shown(np.abs(measured / exact - 1).max(), 2)} of it at "
            "every N: it does not vanish."
        )
    return [*lines, *_band_sentence(data, labels, sizes)]


def _table(data: Any, labels: list[str], sizes: list[int], e0: int, n: int) -> list[str]:
    """One line per N: gap of every system for C = e_n and the worst C, and its condition number."""
    width = max(14, *(len(label) for label in labels))
    lines = [f"gap for C = e_{n} | gap for the worst unit C | condition number of the eigenvectors:"]
    for i, N in enumerate(sizes):
        for label in labels:
            row = data.sel(init=label).isel(state_dim=i)
            sup, kind = float(row["sup"][e0]), int(row["evidence"][e0])
            if kind == CERTIFIED:
                text = _digits(float(row["lower"][e0]), float(row["upper"][e0]))
            else:
                text = _shown(sup, 4)
            worst = float(row["worst_sup"])
            mark = _MARKS[int(row["worst_evidence"])]
            lines.append(
                f"  N {N:>5}  {label:<{width}}  {text:<17} | {_shown(worst, 5):>8} {mark:<9} | kappa "
                f"{_shown(row['kappa'], 4)} {_MARKS[int(row['kappa_evidence'])]}"
            )
    return lines


def _bound_sentence(row: Any, label: str, sizes: list[int]) -> str:
    worst, bound = row["worst_lower"].values, row["deviation_bound"].values
    ends = f"{_shown(worst[0])} at N = {sizes[0]}, {_shown(worst[-1])} at N = {sizes[-1]}"
    kappa = row["kappa"].values
    text = f"{label}: worst-C gap {ends}; kappa from {_shown(kappa[0])} to {_shown(kappa[-1])}"
    known = np.isfinite(bound)
    if not known.any():
        return f"{text}; no bound of ours applies."
    use = float((worst[known] / bound[known]).max())
    # certified lower ends are exact to 1e-13, the bound is a double
    inside = "never beaten" if use <= 1 + 1e-9 else "BEATEN"
    return f"{text}; our bound ({_shown(bound[known][-1])} at the largest N) is proved and {inside}: used to {use:.0%}."


def _band_sentence(data: Any, labels: list[str], sizes: list[int]) -> list[str]:
    if "s4d-legs" not in labels:
        return []
    row = data["band_sup"].sel(init="s4d-legs")
    bands = data["band"].values
    j = int(np.argmin(np.abs(bands - 100)))
    values = ", ".join(f"{_shown(v)} (N = {N})" for N, v in zip(sizes, row.values[:, j], strict=True))
    return [
        f"On the band |omega| <= {bands[j]:g} alone the worst-C gap of S4D does go to 0: {values} (measured). "
        "Convergence is uniform on compact sets, not on the axis."
    ]


def weak(tree: xr.DataTree) -> list[str]:
    """Output errors for given inputs against their limit."""
    data = _group(tree, "weak")
    labels, sizes = _labels(data), _sizes(data)
    if "s4d-legs" not in labels:
        return []
    row = data.sel(init="s4d-legs")
    signals = [str(s) for s in data["signal"].values]
    lines = []
    parts = []
    for name in signals:
        limit = float(data["limit"].sel(signal=name)[0])
        scaled = float(row["scaled_error"].sel(signal=name)[-1, 0])
        if math.isfinite(limit):
            parts.append(f"{name} {_shown(scaled, 5)} (limit {_shown(limit, 5)})")
    lines.append(
        f"Weakly S4D does converge: N times the L2 error of the output at N = {sizes[-1]} against its limit, the norm "
        f"of dy_LegS/dt (proved for finitely many outputs): {', '.join(parts)}; measured by quadrature, output "
        f"{int(data['output'].values[0])}."
    )
    impulse = row["l2_error"].sel(signal="impulse").values[:, 0]
    text = (
        f"No rate holds for all inputs: for the impulse the L2 error itself is {_shown(impulse[-1])} at N = {sizes[-1]}"
    )
    if "spike" in signals:
        spike = row["l2_error"].sel(signal="spike").values[:, 0]
        text += f", for a unit input exp(-t) sin(w0 t) at the last spike {_shown(spike[0])} to {_shown(spike[-1])}"
    return [*lines, text + "."]


def discrete(tree: xr.DataTree) -> list[str]:
    """Zero-order hold against the bilinear conventions."""
    data = _group(tree, "discrete")
    sizes = _sizes(data)
    steps = data["dt"].values
    j = int(np.argmax(steps))
    lines = []
    for label in _labels(data):
        row = data.sel(init=label).isel(state_dim=-1, dt=j)
        shown = {str(m): _shown(row["sup"].sel({"method": m}), 5) for m in data["method"].values}
        text = (
            f"{label}, N = {sizes[-1]}, step {steps[j]:g} s, sup over the unit circle for output 0: zero-order hold "
            f"{shown['zoh']}, Tustin {shown['bilinear']}, S4's bilinear convention {shown['bilinear_s4']}"
        )
        if label == "s4d-legs":
            law = data["predicted"].isel(state_dim=-1, dt=j).sel({"method": "bilinear_s4"})
            text += f" (isolated spike: {_shown(law, 5)})"
        if label.startswith("hippo-rho") and math.isfinite(float(row["worst_bound"].max())):
            rest = row.sel({"method": "bilinear_s4"})
            text += (
                f", for the worst C {_shown(rest['worst_sup'], 4)} there, bounded by max(1, N step/2)/(rho - 1) = "
                f"{_shown(rest['worst_bound'], 4)}"
            )
        lines.append(f"{text} (measured).")
    return lines


def frontier(tree: xr.DataTree) -> list[str]:
    """Conditioning against deviation, and the bound that holds for every PTD."""
    data, bound = _group(tree, "frontier"), _group(tree, "frontier_bound")
    family = np.array([str(f) for f in data["family"].values])
    N = data["state_dim"].values
    product = data["kappa"].values * data["deviation"].values
    lines = ["Frontier, kappa times worst-C deviation by family at the largest N (measured):"]
    for name in dict.fromkeys(family):
        mine = family == name
        at = mine & (N[mine].max() == N)
        low, high = product[at].min(), product[at].max()
        lines.append(f"  {name:<20} N {int(N[mine].max()):>4}: {_shown(low)} to {_shown(high)}")
    last = bound.isel(state_dim=-1)
    values = ", ".join(
        f"{_shown(k, 4)} at eps = {e:g}"
        for k, e in zip(last["kappa_lower"].values, bound["epsilon"].values, strict=True)
    )
    lines.append(
        f"Every PTD with |E| <= eps at N = {int(bound['state_dim'].values[-1])} has kappa of at least {values} "
        "(certified)."
    )
    broken = 0
    for size, row in zip(bound["state_dim"].values, bound["kappa_lower"].values, strict=True):
        for k, e in zip(row, bound["epsilon"].values, strict=True):
            ptd = (
                (size == N)
                & np.isnan(data["rho"].values)
                & (family != "s4d")
                & (data["epsilon"].values <= e * (1 + 1e-9))
            )
            broken += int((data["kappa"].values[ptd] < k).sum())
    lines.append(f"Perturbations drawn here that lie below that bound: {broken}.")
    return lines


def tightness(tree: xr.DataTree) -> list[str]:
    """How much of the bounds random perturbations use."""
    data = _group(tree, "tightness")
    ratio, sup, ours = data["ratio"].values, data["sup"].values, data["bound_ours"].values
    paper = data["bound_paper"].values
    kinds = np.array([str(s) for s in data["structure"].values])
    best = int(np.argmax(ratio))
    known = np.isfinite(paper)
    lines = [
        "Our bound eps/(1/2 - lambda_max(sym E)) N/sqrt(omega^2 + N^2), proved for every E with lambda_max(sym E) < "
        f"1/2: beaten by {int((ratio > 1 + 1e-9).sum())} of {ratio.size} random perturbations of {len(set(kinds))} "
        f"structures, eps from {_shown(data['epsilon'].values.min(), 1)} to {_shown(data['epsilon'].values.max(), 2)}; "
        f"the closest ({kinds[best]}) uses {ratio[best]:.0%} of it."
    ]
    if known.any():
        lines.append(
            f"Median use: ours {np.median(sup / ours):.1%}; the paper's leading term (2 ln N + 4) eps, where eps < 1/2 "
            f"so that it says something, {np.median(sup[known] / paper[known]):.1%} (its B has norm 1, ours norm N)."
        )
    return lines


def spikes(tree: xr.DataTree) -> list[str]:
    """Laws of position and height."""
    data = _group(tree, "spikes")
    off = np.abs(data["position"].values - data["law"].values)[:, 0]
    height = data["height"].values[:, 0]
    N = int(data["state_dim"].values[-1])
    return [
        f"The last spike of S4D at N = {N} sits {_shown(off[-1], 2)} rad/s from N^2/pi - pi/6; its height for C = e_0 "
        f"is {height[-1]:.6f}, 2/pi = {2 / math.pi:.6f} (measured; position and height are certified in gaps)."
    ]


def pseudospectrum(tree: xr.DataTree) -> list[str]:
    """Transient behaviour of the state matrices."""
    data = _group(tree, "pseudospectrum")
    lines = []
    for k, label in enumerate(str(m) for m in data["matrix"].values):
        lower, upper = float(data["kreiss_lower"][k]), float(data["kreiss_upper"][k])
        kreiss = _shown(lower, 4) if lower == upper else f"in [{_shown(lower, 4)}, {_shown(upper, 4)}]"
        lines.append(
            f"{label}, N = {int(data['state_dim'])}: Kreiss constant {kreiss}, numerical abscissa "
            f"{_shown(data['numerical_abscissa'][k], 4)}, spectral abscissa {_shown(data['spectral_abscissa'][k], 4)}, "
            f"largest |exp(tA)| {_shown(data['transient'].values[k].max(), 4)} (floating point)."
        )
    return lines


def regression(tree: xr.DataTree) -> list[str]:
    """What a readout trained on a band says beyond it."""
    data = _group(tree, "regression")
    predicted, beyond = data["predicted"].values, ~data["trained"].values.astype(bool)
    lines = []
    for k, label in enumerate(_labels(data)):
        outside = predicted[k][beyond]
        lines.append(
            f"{label}: amplitude 1 of a sinusoid is read as {_shown(outside.min(), 3)} to {_shown(outside.max(), 3)} "
            f"beyond the trained band (root mean square error {_shown(data['train_error'][k], 2)} in it, "
            f"{_shown(data['test_error'][k], 2)} beyond)."
        )
    return [
        f"Regression of amplitudes, N = {int(data['state_dim'])}, band up to just below S4D's last spike at "
        f"{float(data['spike']):.3f} rad/s (our deterministic version of arXiv 2310.01698, section 3.4):",
        *[f"  {line}" for line in lines],
    ]
