"""Token dynamics of a pretrained Mamba: what its tokens do through depth, and whether the theory predicted it.

| name in the dataset | symbol | where |
|---|---|---|
| delta | Delta_d(x_t), after bias and softplus | Mamba, algorithm 2 |
| decay | exp(Delta A), per token, channel and state | ZOH |
| q | q(x) = x^T S_C^T S_B x = C_t . B_t | arXiv 2410.03292: mu in one dimension, the input-output matrix in many |
| radial_rate | g = <r, dr> / |r|^2, r the residual stream and dr one block's update | |
| g_skip, g_self, g_hist, g_bias | exact split of g: <v, D u>, q A_Delta, <v, C h^->, out_proj's bias; v = (W_out^T r) gate / |r|^2 | |
| kappa | C_t^T exp(A_d (Delta_{t-m+1} + ... + Delta_t)) B_{t-m}, averaged over t | the scalar mu exp(-a tau) when A is not scalar |

Every sequence of the text is a task of its own. A task runs chunk by chunk through all layers and keeps sums, histograms
and per-token scalars only: nothing of size (token, channel, state) exists.
"""

from __future__ import annotations

from ssmtheory.results.schema import DatasetSchema, Dimension, Variable

__all__ = ["PREDICTORS", "QUANTILES", "SCENARIOS", "SCHEMA", "TITLE"]

TITLE = "Token dynamics of a pretrained selective state-space model"

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# sign of each is compared with the sign of the radial rate g
PREDICTORS = ("q", "kappa", "A_Delta", "g_skip", "g_self", "g_hist", "g_self+g_hist")
SCENARIOS = {-1: "convergent", 0: "undecided", 1: "divergent"}

_FLAGS = {"flag_values": [-1, 0, 1], "flag_meanings": "convergent undecided divergent"}
_EVIDENCE = {"flag_values": [0, 1], "flag_meanings": "no_evidence evidence"}

_SLT = ("sequence", "layer", "token")
_LDN = ("layer", "channel", "state")
_LP = ("layer", "predictor")


def _f(dims: tuple[str, ...], units: str, long_name: str, **kw: object) -> Variable:
    return Variable(dims, "float32", units, long_name, **kw)  # type: ignore[arg-type]


SCHEMA = DatasetSchema(
    "token_dynamics",
    1,
    groups={
        "text": {
            "start": Variable(("sequence",), "int64", "token", "position of the sequence's first token in the text"),
            "n_bytes": Variable(("sequence",), "int64", "byte", "bytes of the predicted tokens (0: unknown)"),
            "bits_per_token": _f(("sequence",), "bit", "mean loss per predicted token"),
            "bits_per_byte": _f(("sequence",), "bit", "mean loss per byte of text (NaN where the bytes are unknown)"),
        },
        "tokens": {
            "token_id": Variable(("sequence", "token"), "int32", "1", "token id"),
            "loss_bits": _f(("sequence", "token"), "bit", "loss of the next token (NaN at the last one)"),
            "residual_norm": _f(("sequence", "depth", "token"), "1", "norm |r| of the residual stream"),
            "radial_rate": _f(_SLT, "1", "radial rate g = <r, dr>/|r|^2 of a layer's update"),
            "step_size": _f(_SLT, "1", "step size |dr|/|r|"),
            "angular_speed": _f(_SLT, "rad", "angle between the residual before and after the layer"),
            "q": _f(_SLT, "1", "q(u) = C_t . B_t (mean over groups)"),
            "kappa": _f(_SLT, "1", "lag-one kernel C_t exp(Delta_t A) B_{t-1}, mean over channels"),
            "delta": _f(_SLT, "1", "step Delta, mean over channels"),
            "A_Delta": _f(_SLT, "1", "A_Delta = <v, Delta u>"),
            "g_skip": _f(_SLT, "1", "part of g from the skip D u"),
            "g_self": _f(_SLT, "1", "part of g from the token's own write, q A_Delta"),
            "g_hist": _f(_SLT, "1", "part of g from the carried state"),
            "g_bias": _f(_SLT, "1", "part of g from the bias of out_proj"),
            "state_rms": _f(_SLT, "1", "root mean square of the state over channels and states"),
        },
        "channels": {
            "delta_quantile": _f(("layer", "quantile", "channel"), "1", "quantiles of the step Delta"),
            "delta_mean": _f(("layer", "channel"), "1", "mean step Delta"),
            "delta_bin_lower": _f(("delta_bin",), "1", "lower edge of the bin of Delta"),
            "delta_bin_upper": _f(("delta_bin",), "1", "upper edge of the bin of Delta"),
            "delta_histogram": Variable(("layer", "delta_bin"), "int64", "1", "tokens and channels by step Delta"),
            "decay_bin_lower": _f(("decay_bin",), "1", "lower edge of the bin of exp(Delta A)"),
            "decay_bin_upper": _f(("decay_bin",), "1", "upper edge of the bin of exp(Delta A)"),
            "decay_histogram": Variable(
                ("layer", "decay_bin"), "int64", "1", "tokens, channels and states by decay exp(Delta A)"
            ),
            "horizon": _f(_LDN, "token", "horizon 1/(-A mean Delta)"),
            "erf": _f(_LDN, "token", "effective receptive field S1/S0 of the sequences' last token"),
            "lyapunov": _f(_LDN, "1/token", "Lyapunov exponent along the sequence, A mean Delta"),
            "kappa": _f(("layer", "lag", "channel"), "1", "mean kernel C_t exp(A sum Delta) B_{t-lag}"),
            "lag_time": _f(("layer", "lag", "channel"), "1", "mean of the sum of Delta over the lag"),
        },
        "layers": {
            "eig_input_output": Variable(
                ("layer", "state"), "complex128", "1", "eigenvalues of S_B S_C^T (the non-zero ones of M = S_C^T S_B)"
            ),
            "eig_symmetric": Variable(("layer", "eig"), "float64", "1", "non-zero eigenvalues of (M + M^T)/2"),
            "trace_input_output": Variable(("layer",), "float64", "1", "trace of M"),
            "q_positive_fraction": _f(("layer",), "1", "fraction of tokens with q > 0"),
            "q_positive_low": _f(("layer",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "q_positive_high": _f(("layer",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "growth": _f(("layer",), "1", "mean of ln |r| after minus before the layer"),
            "growth_low": _f(("layer",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "growth_high": _f(("layer",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "g_positive_fraction": _f(("layer",), "1", "fraction of tokens with g > 0 (moving outwards)"),
            "predicted_scenario": Variable(
                ("layer",), "int8", "1", "scenario by the sign of q of most tokens", attrs=_FLAGS
            ),
            "eigenvalue_scenario": Variable(
                ("layer",), "int8", "1", "scenario by the signs of M's symmetric part (void: inertia)", attrs=_FLAGS
            ),
            "observed_scenario": Variable(("layer",), "int8", "1", "scenario of the tokens' norms", attrs=_FLAGS),
            "t_c": _f(("layer",), "layer", "median of 1/(2 |q| Delta): depth on which the theory's ODE acts"),
            "chi": _f(("layer",), "1", "fraction of tokens with |g_self + g_hist| > |g_skip + g_bias|"),
            "share": _f(("layer", "part"), "1", "share of the variance of g: cov(part, g)/var(g)"),
            "coherent_share": _f(("layer",), "1", "2 g/(2 g + step^2), of the means over tokens"),
            "kappa_sign_change": _f(("layer",), "1", "fraction of channels whose kappa changes sign over the lags"),
            "split_residual": _f(("layer",), "1", "largest |g - sum of its parts| over the largest |part|"),
            "state_rms_by_position": _f(("layer", "position_bin"), "1", "root mean square of the state by position"),
            "position_lower": Variable(("position_bin",), "int64", "token", "first position of the bin"),
            "position_upper": Variable(("position_bin",), "int64", "token", "first position after the bin"),
        },
        "concordance": {
            "concordance": _f(_LP, "1", "fraction of tokens whose sign of g is the predictor's"),
            "concordance_low": _f(_LP, "1", "lower end of its 95 % bootstrap interval over sequences"),
            "concordance_high": _f(_LP, "1", "upper end of its 95 % bootstrap interval over sequences"),
            "chance": _f(_LP, "1", "concordance of independent signs with the same margins"),
            "null_low": _f(_LP, "1", "2.5 % point of the concordance with sequences permuted"),
            "null_high": _f(_LP, "1", "97.5 % point of the concordance with sequences permuted"),
            "majority_baseline": _f(("layer",), "1", "concordance of always naming the layer's majority sign"),
            "evidence": Variable(_LP, "int8", "1", "above the majority baseline and the null", attrs=_EVIDENCE),
            "spearman": _f(_LP, "1", "Spearman rank correlation of predictor and g"),
            "pooled_concordance": _f(("predictor",), "1", "mean over layers of the concordance"),
            "pooled_baseline": _f((), "1", "mean over layers of the majority baseline"),
            "kappa": _f(("predictor",), "1", "stratified kappa: sum(c - chance)/sum(1 - chance) over layers"),
            "kappa_low": _f(("predictor",), "1", "lower end of its 95 % bootstrap interval over sequences"),
            "kappa_high": _f(("predictor",), "1", "upper end of its 95 % bootstrap interval over sequences"),
            "kappa_null_low": _f(("predictor",), "1", "2.5 % point of kappa with sequences permuted"),
            "kappa_null_high": _f(("predictor",), "1", "97.5 % point of kappa with sequences permuted"),
            "pooled_spearman": _f(("predictor",), "1", "mean over layers of the Spearman correlation"),
            "pooled_evidence": Variable(
                ("predictor",), "int8", "1", "above the majority baseline and the null", attrs=_EVIDENCE
            ),
        },
        "clustering": {
            "cosine": _f(("depth", "token_i", "token_j"), "1", "cosines of the first sequence's tokens"),
            "mean_cosine": _f(("depth",), "1", "mean cosine of two tokens of a sequence"),
            "cosine_to_first": _f(("depth",), "1", "mean cosine of late tokens to their own first token"),
            "cosine_to_other_first": _f(("depth",), "1", "mean cosine of late tokens to other sequences' first token"),
            "anchor_cosine": _f(("depth", "anchor_token"), "1", "mean cosine of late tokens to their anchor"),
            "anchor_excess": _f(
                ("depth", "anchor_token"), "1", "anchor cosine less that to the other sequences' anchor"
            ),
            "anchor_excess_low": _f(("depth", "anchor_token"), "1", "lower end of its 95 % bootstrap interval"),
            "anchor_excess_high": _f(("depth", "anchor_token"), "1", "upper end of its 95 % bootstrap interval"),
        },
        "attention": {
            "map": _f(
                ("layer", "token_i", "token_j"), "1", "hidden attention P_dij of the first tokens, mean over channels"
            ),
            "map_abs": _f(("layer", "token_i", "token_j"), "1", "the same, mean of |P_dij| over channels"),
            "row_token": Variable(("row",), "int64", "token", "query token of the row", optional=True),
            "rows": _f(
                ("layer", "row", "token", "channel"), "1", "rows P_dij of the first sequence", optional=True
            ),
        },
    },
    dimensions={"part": Dimension("part of the radial rate g: skip, self, hist, bias")},
)
