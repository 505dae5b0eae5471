"""What the dataset of `transfer_convergence` holds."""

from __future__ import annotations

from typing import Any

from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

__all__ = ["BRACKET", "CERTIFIED", "EVIDENCE", "MEASURED", "PROVED", "SCHEMA"]

#: How a number is known; codes of the variables `*evidence`.
MEASURED, BRACKET, CERTIFIED, PROVED = 0, 1, 2, 3
EVIDENCE = {MEASURED: "measured", BRACKET: "floating-point bracket", CERTIFIED: "certified", PROVED: "proved"}

_FLAGS = {"flag_values": [0, 1, 2, 3], "flag_meanings": "measured floating_point_bracket certified proved"}
_IN = ("init", "state_dim")
_INO = ("init", "state_dim", "output")
_INMD = ("init", "state_dim", "method", "dt")
_NS = ("state_dim", "spike")


def _f(dims: tuple[str, ...], units: str, long_name: str, **kw: Any) -> Variable:
    return Variable(dims, "float64", units, long_name, optional=True, **kw)


def _s(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "str", "1", long_name, optional=True)


def _i(dims: tuple[str, ...], units: str, long_name: str) -> Variable:
    return Variable(dims, "int64", units, long_name, optional=True)


def _b(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "bool", "1", long_name, optional=True)


def _e(dims: tuple[str, ...], long_name: str) -> Variable:
    return Variable(dims, "int8", "1", long_name, optional=True, attrs=_FLAGS)


#: Every group is there only where the configuration asks for it; `init` holds labels such as "ptd-0.1", "hippo-rho-10".
SCHEMA = DatasetSchema(
    "transfer_convergence",
    1,
    groups={
        "gaps": {
            "sup": _f(_INO, "1", "sup over omega of |G - G_LegS| for one output"),
            "lower": _f(_INO, "1", "lower end of its bracket"),
            "upper": _f(_INO, "1", "upper end of its bracket (NaN where it is only measured)"),
            "omega": _f(_INO, "rad/s", "where it is reached"),
            "rigorous": _b(_INO, "whether the bracket is certified in ball arithmetic"),
            "evidence": _e(_INO, "how the sup is known"),
            "worst_sup": _f(_IN, "1", "sup over omega and unit C of |C (X - X_LegS)|"),
            "worst_lower": _f(_IN, "1", "lower end of its bracket"),
            "worst_upper": _f(_IN, "1", "upper end of its bracket (NaN where it is only measured)"),
            "worst_omega": _f(_IN, "rad/s", "where it is reached"),
            "worst_rigorous": _b(_IN, "whether the bracket is certified in ball arithmetic"),
            "worst_evidence": _e(_IN, "how the sup is known"),
            "l2_gap": _f(_INO, "1", "L2 distance of the kernels of one output"),
            "l2_exact": _f(_INO, "1", "the same by our closed formula (NaN where there is none)"),
            "h2_gap": _f(_IN, "1", "H2 norm of X - X_LegS, all outputs"),
            "band_sup": _f(("init", "state_dim", "band"), "1", "worst unit C, frequencies up to the band's edge only"),
            "kappa": _f(_IN, "1", "eigenvector condition number, unit columns"),
            "kappa_evidence": _e(_IN, "how the condition number is known"),
            "spectral_abscissa": _f(_IN, "1/s", "largest real part of a pole"),
            "deviation_bound": _f(_IN, "1", "our bound of the worst-C gap (NaN where there is none)"),
            "epsilon": _f(_IN, "1", "norm of the perturbation A - A_LegS"),
            "rho": _f(_IN, "1", "rho of HiPPO-rho (NaN elsewhere)"),
        },
        "response": {
            "omega": _f(("omega",), "rad/s", "angular frequency"),
            "magnitude": _f(("init", "state_dim", "omega"), "1", "|G(i omega)|, output 0"),
            "legs_magnitude": _f(("omega",), "1", "|G(i omega)| of LegS, output 0"),
            "zoom_magnitude": _f(("init", "state_dim", "offset"), "1", "|G|, output 0, near the last spike of S4D"),
            "legs_zoom_magnitude": _f(("state_dim", "offset"), "1", "|G| of LegS there"),
            "zoom_center": _f(("state_dim",), "rad/s", "position of the last spike"),
        },
        "weak": {
            "l2_error": _f(("init", "state_dim", "signal", "output"), "1", "L2 norm of y - y_LegS for one input"),
            "scaled_error": _f(("init", "state_dim", "signal", "output"), "1", "N times that norm"),
            "worst_error": _f(("init", "state_dim", "signal"), "1", "largest L2 error over unit C"),
            "limit": _f(("signal", "output"), "1", "limit of the scaled error of S4D: the L2 norm of dy_LegS/dt"),
            "decay_order": _f(("signal",), "1", "q where the input's transform decays as |s|^-q"),
        },
        "discrete": {
            "sup": _f(_INMD, "1", "sup over the unit circle of |G - G_LegS|, output 0"),
            "omega": _f(_INMD, "rad/s", "where it is reached, below pi/dt"),
            "upper": _f(_INMD, "1", "upper end of its floating-point bracket (NaN where it is only measured)"),
            "worst_sup": _f(_INMD, "1", "the same for the worst unit C"),
            "worst_omega": _f(_INMD, "rad/s", "where it is reached"),
            "worst_bound": _f(_INMD, "1", "our bound for HiPPO-rho and the worst unit C (NaN where there is none)"),
            "predicted": _f(
                ("state_dim", "method", "dt"), "1", "isolated spike of S4D: 2/pi times the method's factor"
            ),
        },
        "frontier": {
            "family": _s(("sample",), "ginibre, real, dissipative, optimised, published, hippo-rho, normal, s4d"),
            "state_dim": _i(("sample",), "1", "state dimension N"),
            "seed": _i(("sample",), "1", "random seed (0 where nothing is random)"),
            "epsilon": _f(("sample",), "1", "2-norm of A - A_LegS"),
            "rho": _f(("sample",), "1", "rho (NaN for a PTD)"),
            "kappa": _f(("sample",), "1", "eigenvector condition number, unit columns"),
            "deviation": _f(("sample",), "1", "sup over omega and unit C of |C (X - X_LegS)|"),
            "spectral_abscissa": _f(("sample",), "1/s", "largest real part of a pole"),
            "kappa_evidence": _e(("sample",), "how the condition number is known"),
            "deviation_evidence": _e(("sample",), "how the deviation is known"),
        },
        "frontier_bound": {
            "kappa_lower": _f(
                ("state_dim", "epsilon"), "1", "certified lower bound on kappa of every PTD (closed form)"
            ),
            "kappa_lower_area": _f(("state_dim", "epsilon"), "1", "the same from the exact area of the region"),
            "evidence": _e(("state_dim", "epsilon"), "how the bound is known"),
        },
        "tightness": {
            "structure": _s(("sample",), "kind of perturbation E"),
            "state_dim": _i(("sample",), "1", "state dimension N"),
            "seed": _i(("sample",), "1", "random seed"),
            "epsilon": _f(("sample",), "1", "2-norm of E"),
            "symmetric": _f(("sample",), "1", "largest eigenvalue of the symmetric part of E"),
            "sup": _f(("sample",), "1", "sup over omega of |X_PTD - X_LegS| (worst unit C)"),
            "ratio": _f(("sample",), "1", "largest quotient of the deviation and our bound at one frequency"),
            "bound_ours": _f(("sample",), "1", "our bound eps/(1/2 - lambda_max(sym E)), proved"),
            "bound_sharp": _f(("sample",), "1", "our bound with the frequency where the sup is reached"),
            "bound_paper": _f(("sample",), "1", "leading term (2 ln N + 4) eps of arXiv 2310.01698"),
        },
        "spikes": {
            "position": _f(_NS, "rad/s", "frequency of the m-th spike of S4D from above: arg phi = (2m+1) pi"),
            "law": _f(_NS, "rad/s", "N^2/((2m+1) pi) - (2m+1) pi/6"),
            "bulk_law": _f(_NS, "rad/s", "the bulk law of the spectrum"),
            "pole": _f(_NS, "rad/s", "imaginary part y_m of the pole behind the spike"),
            "height": _f(_NS, "1", "|G - G_LegS| at the spike, output 0"),
            "height_law": _f(_NS, "1", "2/((2m+1) pi)"),
            "worst_height": _f(_NS, "1", "the same for the worst unit C: cos(alpha) cot(alpha/2)"),
        },
        "spectrum": {
            "state_dim": _i((), "1", "state dimension N of this group"),
            "exact": _f(("mode",), "rad/s", "imaginary parts of the spectrum of A_N, by the arctangent law"),
            "bulk": _f(("mode",), "rad/s", "the bulk law"),
            "asymptotic": _f(("mode",), "rad/s", "N^2/((2m+1) pi) - (2m+1) pi/6"),
            "s4d_inv": _f(("mode",), "rad/s", "S4D-Inv (arXiv 2206.11893, eq. 8)"),
            "s4d_lin": _f(("mode",), "rad/s", "S4D-Lin (arXiv 2206.11893, eq. 9), from the largest"),
        },
        "pseudospectrum": {
            "state_dim": _i((), "1", "state dimension N of this group"),
            "resolvent_norm": _f(("matrix", "imag", "real"), "s", "norm of the resolvent (z - A)^-1"),
            "eigenvalues": Variable(("matrix", "mode"), "complex128", "1/s", "eigenvalues", optional=True),
            "spectral_abscissa": _f(("matrix",), "1/s", "largest real part of an eigenvalue"),
            "numerical_abscissa": _f(("matrix",), "1/s", "largest eigenvalue of the symmetric part"),
            "pseudospectral_abscissa": _f(("matrix", "epsilon"), "1/s", "largest real part of the pseudospectrum"),
            "kreiss_lower": _f(("matrix",), "1", "lower bound of the Kreiss constant"),
            "kreiss_upper": _f(("matrix",), "1", "upper bound of the Kreiss constant"),
            "kappa": _f(("matrix",), "1", "eigenvector condition number, unit columns"),
            "kappa_evidence": _e(("matrix",), "how the condition number is known"),
            "transient": _f(("matrix", "time"), "1", "norm of exp(t A)"),
        },
        "regression": {
            "state_dim": _i((), "1", "state dimension N of this group"),
            "spike": _f((), "rad/s", "position of S4D's last spike"),
            "predicted": _f(("init", "frequency"), "1", "predicted amplitude (least squares on the trained band)"),
            "gain": _f(("init", "frequency"), "1", "largest gain |G| of a feature at the frequency"),
            "target": _f(("frequency",), "1", "true amplitude"),
            "trained": _b(("frequency",), "whether the frequency is in the trained band"),
            "train_error": _f(("init",), "1", "root mean square error on the trained band"),
            "test_error": _f(("init",), "1", "root mean square error beyond it"),
        },
    },
    dimensions={
        "band": Dimension("largest angular frequency of a band", "rad/s"),
        "offset": Dimension("angular frequency less that of the last spike", "rad/s"),
        "signal": Dimension("input signal"),
        "method": Dimension("discretisation: zoh, bilinear, bilinear_s4"),
        "dt": Dimension("step Delta", "s"),
        "sample": Dimension("one perturbed or replaced system"),
        "spike": Dimension("spike, 0 for the one of largest frequency"),
        "matrix": Dimension("state matrix"),
        "frequency": Dimension("angular frequency of a sinusoid", "rad/s"),
    },
)
