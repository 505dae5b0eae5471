"""One protocol over the Mamba families, and the checks that each adapter passes before its numbers are used.

Whatever the family, a mixer's signals are the same `MixerSignals` (u, z, delta, A, B, C, D, y, ...):

| family | model run by | signals from |
|---|---|---|
| Mamba-1, Mamba-2, Falcon-Mamba | our forward pass | the forward pass itself |
| Jamba | transformers | taps: in_proj (z), x_proj input (u), dt_/b_/c_layernorm outputs (Delta's input, B, C) |
| Zamba2, Bamba | transformers | taps: in_proj ([z, x, B, C, dt]); the convolution is ours |

In a hybrid every Mamba mixer is then recomputed by our scan from its taps and must reproduce the input of its output
projection. Two things that transformers does are avoided: its `conv1d`, `dt_proj` and `act` modules never call forward
hooks (their weights are used functionally), and a multi-token call with a cache restarts Mamba-1's state at zero, so
that hybrids are run in one piece.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import CheckpointError, InputError, SelfCheckError, require
from ssmtheory.mamba.checkpoint import read_json, read_tensors
from ssmtheory.mamba.config import MambaConfig
from ssmtheory.mamba.forward import MixerSignals, Tap, linear, scan_mamba1, scan_mamba2
from ssmtheory.mamba.tokenizer import Tokenizer, find_tokenizer
from ssmtheory.scan import causal_conv1d, resolve_backend
from ssmtheory.typing import PathType

if TYPE_CHECKING:
    import xarray as xr

    from ssmtheory.mamba.model import MambaLM

__all__ = ["TAP_NOTES", "HybridLM", "SelfCheck", "load_hybrid", "self_check", "skipped", "transformers_model"]

# float32 has 24 bits: two orders of summation through a few layers differ by some 1e-6 of the largest value
TOLERANCE = 1e-5
# the peer multiplies in other orders and carries states in float32: more rounding than ours, by less than this
_ROUNDING = 30
# a whole model above this many parameters is compared on its first layers only, to keep loading cheap
_WHOLE_PEER = 200_000_000


@dataclass(frozen=True)
class SelfCheck:
    """What an adapter was compared with when its model was loaded.

    `peer` is the other implementation, "none consulted" or "skipped"; `compared` says what was compared; `deviation`
    is the largest difference over the largest value, which `tolerance` bounded; `notes` are its conditions.
    """

    peer: str
    compared: str
    deviation: float
    tolerance: float
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a record.

        >>> SelfCheck("none consulted", "one-shot, chunked and stepwise logits", 2e-7, 1e-5).summary
        'peer: none consulted; one-shot, chunked and stepwise logits agree to 2.0e-07 of the largest value'
        """
        if self.peer == "skipped":
            return "self-check skipped on request"
        said = f"peer: {self.peer}; {self.compared} agree to {self.deviation:.1e} of the largest value"
        return said + "".join(f"; {note}" for note in self.notes)


def skipped() -> SelfCheck:
    """The record of a check that was turned off."""
    return SelfCheck("skipped", "", float("nan"), float("nan"))


def relative_deviation(value: Any, reference: Any) -> float:
    """Largest |value - reference| over largest |reference| (inf where either is not finite)."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if value.shape != reference.shape or not (np.isfinite(value).all() and np.isfinite(reference).all()):
        return float("inf")
    largest = float(np.abs(reference).max(initial=0.0))
    difference = float(np.abs(value - reference).max(initial=0.0))
    return difference / largest if largest else (0.0 if difference == 0 else float("inf"))


def _agreement(name: str, ours: Any, peer: Any, exact: Callable[[], Any]) -> tuple[float, tuple[str, ...]]:
    """The deviation from the peer if it is acceptable; SelfCheckError otherwise.

    Within TOLERANCE; or, where rounding alone is larger than that, both as far from our float64 result as rounding
    takes them: ours no further than twice the peer, and the peer within _ROUNDING times ours. (A peer that computes
    another function is as far as that function is, whatever our own rounding.)
    """
    deviation = relative_deviation(ours, peer)
    if deviation <= TOLERANCE:
        return deviation, ()
    reference = exact()
    own, others = relative_deviation(ours, reference), relative_deviation(peer, reference)
    if own <= 2 * others and others <= _ROUNDING * own:
        return deviation, (f"rounding: ours is {own:.1e}, the peer {others:.1e} from float64",)
    raise SelfCheckError(
        f"{name} differ from the peer by {deviation:.1e} of the largest value (allowed {TOLERANCE:.0e}): this model is "
        "not computed as its authors compute it, and its dynamics would be another model's. Please report it with the "
        "model's name; --no-check (check=False) loads it all the same"
    )


# ---------------------------------------------------------------------- whole models
def self_check(model: MambaLM, *, consult_peer: bool = True, tokens: int = 12) -> SelfCheck:
    """Compare a whole model with transformers, or with itself evaluated in other ways.

    Args:
        model: to be checked.
        consult_peer: use transformers where it and torch are installed and express the model.
        tokens: how many random ones.

    Raises:
        SelfCheckError: the difference is larger than rounding.
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(0, model.config.vocab_size, (1, tokens))
    installed = all(importlib.util.find_spec(module) for module in ("transformers", "torch"))
    if consult_peer and installed and _has_peer(model.config):
        return _against_transformers(model, ids)
    return _against_itself(model, ids)


def _has_peer(config: MambaConfig) -> bool:
    plain = config.norm == "rms" and config.mixer_norm and not config.norm_before_gate and not config.skip_per_channel
    return plain and config.d_inner % config.d_model == 0


def _against_transformers(model: MambaLM, ids: np.ndarray) -> SelfCheck:
    import torch
    import transformers

    config = model.config
    weights = {name: _numpy(value) for name, value in model.weights.items()}
    compared = f"logits and mixer outputs of {ids.shape[1]} tokens"
    if config.parameters > _WHOLE_PEER and config.n_layer > 2:
        config = config.with_(n_layer=2)
        kept = [n for n in weights if ".layers." not in n or n.startswith(("backbone.layers.0.", "backbone.layers.1."))]
        weights = {name: weights[name] for name in kept}
        compared += f" through the first 2 of {model.n_layer} layers"
    peer = transformers_model(config, weights)
    theirs: list[np.ndarray] = []
    for layer in peer.backbone.layers:
        layer.mixer.register_forward_hook(lambda _m, _i, output: theirs.append(output.numpy().copy()))
    with torch.no_grad():
        theirs.append(peer(torch.from_numpy(ids), use_cache=False).logits.numpy())
    from ssmtheory.mamba.model import MambaLM

    part = (
        model if config is model.config else MambaLM(config, weights, backend=model.backend.asked, device=model.device)
    )
    ours = _mixers_and_logits(part, ids)
    exact: list[list[np.ndarray]] = []

    def reference(k: int) -> np.ndarray:
        if not exact:
            exact.append(_mixers_and_logits(part.to(dtype="float64", backend="numpy", device="cpu"), ids))
        return exact[0][k]

    worst, notes = 0.0, tuple[str, ...]()
    for k, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        # the logits alone could hide a mixer that hardly moves the residual stream
        name = f"{model.name}: the outputs of mixer {k}" if k < config.n_layer else f"{model.name}: the logits"
        deviation, said = _agreement(name, mine, other, partial(reference, k))
        if deviation >= worst:
            worst, notes = deviation, said
    return SelfCheck(f"transformers {transformers.__version__}", compared, worst, TOLERANCE, notes)


def _mixers_and_logits(model: MambaLM, ids: np.ndarray) -> list[np.ndarray]:
    made: list[np.ndarray] = []
    logits = model(ids, tap=lambda _, signals: made.append(_numpy(signals.update)))
    return [*made, _numpy(logits)]


def transformers_model(config: MambaConfig, weights: dict[str, np.ndarray]) -> Any:
    """The transformers model (float32, eval) of the same configuration and weights.

    Raises:
        SelfCheckError: transformers has other parameters than we do.
        MissingDependencyError: transformers is not installed.
    """
    transformers = require("transformers", "test", "comparing with transformers")
    import torch

    options = config.to_dict("huggingface")
    options.pop("architectures")
    kind = options.pop("model_type")
    if isinstance(options.get("time_step_limit"), list):
        options["time_step_limit"] = config.time_step_limit
    with torch.random.fork_rng(devices=[]):  # its initialisation must not move the caller's generator
        peer = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **options))
    state = {
        name.replace("backbone.embedding.", "backbone.embeddings."): torch.from_numpy(np.array(value, np.float32))
        for name, value in weights.items()
    }
    missing, unexpected = peer.load_state_dict(state, strict=False)
    missing = [name for name in missing if not (name == "lm_head.weight" and config.tie_embeddings)]
    if missing or unexpected:
        raise SelfCheckError(f"transformers has other parameters: missing {missing[:4]}, unexpected {unexpected[:4]}")
    return peer.float().eval()


def _against_itself(model: MambaLM, ids: np.ndarray) -> SelfCheck:
    compared = "one-shot, chunked and stepwise logits"
    whole = _numpy(model(ids))
    pieces: list[np.ndarray] = []
    model.stream(ids, chunk=5, on_logits=lambda _, logits: pieces.append(_numpy(logits)))
    steps, state = [], None
    for i in range(ids.shape[1]):
        logits, state = model.step(ids[:, i], state)
        steps.append(_numpy(logits)[:, None])
    # rounding alone reaches 1e-5 through a few layers of float32; a state lost between chunks shows at 1e-3 and more
    tolerance = 10 * TOLERANCE if model.dtype == "float32" else 1e-11
    deviation = max(relative_deviation(np.concatenate(p, axis=1), whole) for p in (pieces, steps))
    if deviation > tolerance:
        raise SelfCheckError(f"{compared} differ by {deviation:.1e} of the largest value (allowed {tolerance:.0e})")
    return SelfCheck("none consulted", compared, deviation, tolerance)


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


# ---------------------------------------------------------------------- hybrids
TAP_NOTES = {
    "JambaMambaMixer": "u: input of x_proj; Delta's low-rank input, B, C: outputs of dt_layernorm, b_layernorm, "
    "c_layernorm; z: second half of in_proj's output; reproduced: the input of out_proj",
    "Zamba2MambaMixer": "z, [x | B | C] and dt: in_proj's output, with our convolution; Delta clamped to "
    "time_step_limit; reproduced: the gated norm's input and the input of out_proj",
    "BambaMixer": "z, [x | B | C] and dt: in_proj's output, with our convolution; Delta clamped to time_step_limit; "
    "reproduced: the gated norm's input and the input of out_proj",
}


# submodules whose forward hooks do fire
_TAPPED = ("in_proj", "x_proj", "dt_layernorm", "b_layernorm", "c_layernorm", "norm", "out_proj")


class HybridLM:
    """A hybrid of Mamba and attention layers: transformers runs it, we take each Mamba mixer's signals.

    Layers are counted over the Mamba mixers only, in the order of the model; `layers` has their module paths.

    Args:
        host: a transformers model with Jamba, Zamba2 or Bamba mixers.
        name: for messages and records.
        sha256: of the checkpoint; computed from the host's parameters when None.
        dtype: "float32" or "float64": of the scan that recomputes the mixers (the host runs in float32).
        backend: of that scan.
        tokenizer: of the text, if there is one.

    Raises:
        InputError: the model has no such mixer.
    """

    def __init__(
        self, host: Any, *, name: str = "unnamed", sha256: str | None = None, dtype: str = "float32",
        backend: str = "auto", tokenizer: Tokenizer | None = None,
    ) -> None:  # fmt: skip
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
        self.host = host.float().eval()
        self.name = name
        self.dtype = dtype
        self.device = "cpu"
        self.backend = resolve_backend(backend=backend)
        self._tokenizer = tokenizer
        self._mixers = [(path, m) for path, m in host.named_modules() if type(m).__name__ in TAP_NOTES]
        if not self._mixers:
            raise InputError(f"{type(host).__name__} has no mixer of {', '.join(TAP_NOTES)}")
        self.layers = [path for path, _ in self._mixers]
        self.vocab_size = int(host.config.vocab_size)
        self._weights = [
            {n: p.detach().numpy().astype(dtype) for n, p in mixer.named_parameters()} for _, mixer in self._mixers
        ]
        self.configs = [_mixer_config(mixer, w) for (_, mixer), w in zip(self._mixers, self._weights, strict=True)]
        self.notes = {path: TAP_NOTES[type(mixer).__name__] for path, mixer in self._mixers}
        self.sha256 = sha256 or _host_sha256(host)
        self.check: SelfCheck = skipped()

    def __repr__(self) -> str:
        return f"HybridLM({self.name!r}, {type(self.host).__name__}, {self.n_layer} Mamba mixers, {self.dtype})"

    @property
    def n_layer(self) -> int:
        """Number of Mamba mixers."""
        return len(self.layers)

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns text into token ids; InputError where the checkpoint has no tokenizer.json."""
        if self._tokenizer is None:
            raise InputError(f"{self.name} has no tokenizer.json: give token ids instead (--token-ids FILE.npy)")
        return self._tokenizer

    def __call__(self, tokens: Any, *, tap: Tap | None = None) -> np.ndarray:
        """The host's logits, float32 (batch, length, vocab); tap(layer, MixerSignals) sees each mixer."""
        logits, taken = self._run(tokens)
        if tap is not None:
            for layer, taps in enumerate(taken):
                tap(layer, self._signals(layer, taps))
        return logits

    def stream(
        self,
        tokens: Any,
        tap: Tap | None = None,
        *,
        chunk: int = 1024,
        on_logits: Callable[[int, Any], None] | None = None,
    ) -> None:
        """Run the tokens and call the taps, as `MambaLM.stream` does.

        The attention layers see the whole text, so it runs in one piece and `chunk` is not used: memory grows with
        its length.
        """
        logits = self(tokens, tap=tap)
        if on_logits is not None:
            on_logits(0, logits)

    def trace(
        self, tokens: Any, names: Iterable[str] | None = None, *, layers: Sequence[int] | None = None,
        channels: Sequence[int] | None = None, chunk: int = 1024, out: PathType | None = None,
    ) -> xr.DataTree:  # fmt: skip
        """Signals of the Mamba mixers as a labelled dataset: see `ssmtheory.mamba.trace.collect`."""
        from ssmtheory.mamba.trace import DEFAULT_NAMES, collect

        names = DEFAULT_NAMES if names is None else names
        return collect(self, tokens, names, layers=layers, channels=channels, chunk=chunk, out=out)

    # ------------------------------------------------------------------ taps
    def _run(self, tokens: Any) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
        import torch

        ids = _numpy(tokens)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError(f"tokens are {ids.dtype} of shape {ids.shape}: must be integers (batch, length)")
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            raise InputError(f"token ids {ids.min()} to {ids.max()}: {self.name} has 0 to {self.vocab_size - 1}")
        taken: list[dict[str, np.ndarray]] = [{} for _ in self._mixers]
        handles = []
        modules = dict(self.host.named_modules())
        try:
            for taps, (path, mixer) in zip(taken, self._mixers, strict=True):
                handles += [
                    getattr(mixer, child).register_forward_hook(_keep(taps, child))
                    for child in _TAPPED
                    if hasattr(mixer, child)
                ]
                parent = modules[path.rpartition(".")[0]]
                handles.append(parent.register_forward_pre_hook(_keep_input(taps), with_kwargs=True))
            with torch.no_grad():
                logits = self.host(torch.from_numpy(ids.astype(np.int64)), use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return logits.float().numpy(), taken

    def _signals(self, layer: int, taps: dict[str, np.ndarray]) -> MixerSignals:
        """The mixer recomputed from its taps."""
        config, weights = self.configs[layer], self._weights[layer]
        backend = str(self.backend)
        for needed in ("in_proj.in", "in_proj.out", "out_proj.in", "out_proj.out", "residual"):
            if needed not in taps:
                raise SelfCheckError(
                    f"{self.layers[layer]}: the tap {needed} did not fire in this transformers version"
                )
        projected = taps["in_proj.out"].astype(self.dtype)
        if config.family == "mamba2":
            end = config.d_inner + config.conv_channels
            z = projected[..., : config.d_inner]
            x_B_C = causal_conv1d(
                projected[..., config.d_inner : end], weights["conv1d.weight"][:, 0, :], weights.get("conv1d.bias"),
                activation="silu", backend=backend,
            )  # fmt: skip
            u, delta, A, B, C, D, y, gated, last = scan_mamba2(
                x_B_C, projected[..., end:], z, weights.get, config, None, backend
            )
        else:
            z = projected[..., config.d_inner :]
            names = ("x_proj.in", "dt_layernorm.out", "b_layernorm.out", "c_layernorm.out")
            u, low_rank, B, C = (taps[name].astype(self.dtype) for name in names)
            delta, A, D, y, gated, last = scan_mamba1(u, low_rank, B, C, z, weights.get, None, backend)
        update = linear(gated, weights["out_proj.weight"], weights.get("out_proj.bias"))
        residual, hidden = (taps[name].astype(self.dtype) for name in ("residual", "in_proj.in"))
        return MixerSignals(residual, hidden, u, z, delta, A, B, C, D, y, gated, update, None, last)

    def verify(self, tokens: int = 12) -> SelfCheck:
        """Recompute every mixer from its taps and compare with what the host fed to, and got from, out_proj.

        Raises:
            SelfCheckError: a mixer is not reproduced; the message names it.
        """
        import transformers

        ids = np.random.default_rng(0).integers(0, self.vocab_size, (1, tokens))
        _, taken = self._run(ids)
        worst = 0.0
        for layer, taps in enumerate(taken):
            signals = self._signals(layer, taps)
            pairs = [("out_proj.in", signals.gated), ("out_proj.out", signals.update)]
            if "norm.in" in taps:
                pairs.append(("norm.in", signals.y))
            for tap, ours in pairs:
                name = f"{self.layers[layer]}: {tap}"
                deviation = relative_deviation(ours, taps[tap])
                if deviation > TOLERANCE:
                    raise SelfCheckError(f"{name} is reproduced to {deviation:.1e} only (allowed {TOLERANCE:.0e})")
                worst = max(worst, deviation)
        compared = f"inputs and outputs of out_proj in {self.n_layer} mixers, recomputed from their taps,"
        return SelfCheck(f"transformers {transformers.__version__}", compared, worst, TOLERANCE)


def _keep(taps: dict[str, np.ndarray], child: str) -> Callable[..., None]:
    def kept(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
        taps[child + ".in"] = inputs[0].float().numpy().copy()
        taps[child + ".out"] = output.float().numpy().copy()

    return kept


def _keep_input(taps: dict[str, np.ndarray]) -> Callable[..., None]:
    def kept(_: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        value = inputs[0] if inputs else options["hidden_states"]
        taps["residual"] = value.float().numpy().copy()

    return kept


def _mixer_config(mixer: Any, weights: dict[str, np.ndarray]) -> MambaConfig:
    """Sizes of one mixer, read off its module."""
    shared: dict[str, Any] = {
        "d_model": mixer.hidden_size,
        "n_layer": 1,
        "vocab_size": 1,
        "d_state": mixer.ssm_state_size,
        "d_conv": mixer.conv_kernel_size,
        "conv_bias": "conv1d.bias" in weights,
        "proj_bias": "in_proj.bias" in weights,
    }
    if type(mixer).__name__ == "JambaMambaMixer":
        return MambaConfig.mamba1(d_inner=mixer.intermediate_size, dt_rank=mixer.time_step_rank, **shared)
    low, high = mixer.time_step_limit or (0.0, math.inf)
    return MambaConfig.mamba2(
        expand=mixer.intermediate_size / mixer.hidden_size, head_dim=mixer.head_dim, n_groups=mixer.n_groups,
        norm_eps=mixer.norm.variance_epsilon, time_step_limit=(float(low), float(high)), **shared,
    )  # fmt: skip


def _host_sha256(host: Any) -> str:
    digest = hashlib.sha256(type(host).__name__.encode())
    for name, value in sorted(host.state_dict().items()):
        digest.update(f"\n{name} {list(value.shape)}\n".encode())
        digest.update(np.ascontiguousarray(value.float().numpy()).data)
    return digest.hexdigest()


def load_hybrid(
    source: Any, *, name: str | None = None, dtype: str = "float32", backend: str = "auto", check: bool = True
) -> HybridLM:
    """Load a Jamba, Zamba2 or Bamba model.

    Args:
        source: a folder in the Hugging Face layout, or a transformers model.
        name: for messages; the folder's by default.
        dtype, backend: of the scan that recomputes the mixers.
        check: verify at load that every mixer is reproduced.

    Raises:
        MissingDependencyError: transformers is not installed.
        CheckpointError: the folder is damaged, or its tensors are not those of its configuration.
        SelfCheckError: a mixer is not reproduced from its taps.
    """
    if not isinstance(source, (str, Path)):
        model = HybridLM(source, name=name or type(source).__name__, dtype=dtype, backend=backend)
    else:
        host, sha256 = _read_host(Path(source))
        tokenizer = find_tokenizer(source, 0)
        model = HybridLM(
            host, name=name or Path(source).name, sha256=sha256, dtype=dtype, backend=backend, tokenizer=tokenizer
        )
    if check:
        model.check = model.verify()
    return model


def _read_host(folder: Path) -> tuple[Any, str]:
    transformers = require("transformers", "test", "running a hybrid model")
    import torch

    raw = read_json(folder / "config.json")
    if raw.get("auto_map"):
        raise CheckpointError(f"{folder.name}/config.json asks for code of its own (auto_map): it is never executed")
    tensors, _ = read_tensors(folder)  # the strict reader first: damage, pickled code and bad dtypes end here
    if bad := [n for n, t in tensors.items() if not np.isfinite(t.array()).all()]:
        raise CheckpointError(f"{bad[0]} holds NaN or infinity")
    digest = hashlib.sha256(repr(sorted(raw.items())).encode())
    for key in sorted(tensors):
        digest.update(f"\n{key} {tensors[key].dtype} {list(tensors[key].shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensors[key].data).data)
    try:
        host, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # a contradictory configuration can make the library raise anything
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise CheckpointError(f"transformers cannot load {folder.name}: {said}") from error
    for kind, words in (("missing_keys", "missing"), ("unexpected_keys", "unknown"), ("mismatched_keys", "misshapen")):
        if info.get(kind):
            raise CheckpointError(f"the weights do not fit config.json: {words} {sorted(info[kind])[:4]}")
    return host, digest.hexdigest()
