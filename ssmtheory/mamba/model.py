"""A loaded Mamba language model: logits, carried state, one-token steps, sampling, streaming and traces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmtheory.errors import BackendError, CheckpointError, InputError, MissingDependencyError, nearest, require
from ssmtheory.mamba.checkpoint import model_sha256, read_checkpoint, read_json, save_checkpoint
from ssmtheory.mamba.config import MambaConfig, parameter_shapes
from ssmtheory.mamba.forward import MambaState, MixerSignals, Tap, arithmetic_dtype, forward
from ssmtheory.mamba.tokenizer import Tokenizer, find_tokenizer
from ssmtheory.resources import folder as resource_folder
from ssmtheory.scan import resolve_backend
from ssmtheory.typing import PathType

if TYPE_CHECKING:
    import xarray as xr

    from ssmtheory.mamba.adapters import HybridLM, SelfCheck

__all__ = ["MambaLM", "available", "block", "load", "resolve_source"]

_HYBRIDS = ("jamba", "zamba2", "bamba")
# which array library holds the weights for each backend of the scan
_FRAMEWORK = {"torch": "torch", "jax": "jax"}


class MambaLM:
    """A Mamba-1, Mamba-2 or Falcon-Mamba language model on one array library.

    Args:
        config: sizes and switches.
        weights: original state-spaces name to NumPy array, float32 or float64 throughout.
        name: for messages and records.
        sha256: of the stored checkpoint; computed from the weights when None.
        backend: of the scan: "auto" (NumPy), or a name of `ssmtheory.scan.BACKENDS`. "torch" and "jax" also hold the
            weights in that library, and calls then return its arrays.
        device: of torch or jax: "cpu", "cuda", "cuda:0", "gpu".
        tokenizer: of the text, if the model has one.
        check: what `load` found when it compared the model with a peer.

    Raises:
        InputError: weights that do not fit the configuration.
        MissingDependencyError, BackendError: the backend or device is not available.

    >>> from ssmtheory.mamba import MambaConfig, MambaLM
    >>> from ssmtheory.mamba.initialize import initial_weights
    >>> config = MambaConfig.mamba1(d_model=16, n_layer=2, vocab_size=256)
    >>> model = MambaLM(config, initial_weights(config))
    >>> model(np.zeros((1, 5), int)).shape
    (1, 5, 256)
    """

    def __init__(
        self,
        config: MambaConfig,
        weights: Mapping[str, Any],
        *,
        name: str = "unnamed",
        sha256: str | None = None,
        backend: str = "auto",
        device: str = "cpu",
        tokenizer: Tokenizer | None = None,
        check: SelfCheck | None = None,
    ) -> None:
        shapes = parameter_shapes(config)
        if odd := sorted(set(shapes) ^ set(weights)):
            raise InputError(f"the weights do not fit the configuration: {', '.join(odd[:4])}")
        arrays: dict[str, np.ndarray] = {}
        for key, shape in shapes.items():
            arrays[key] = np.asarray(weights[key])
            if arrays[key].shape != shape:
                raise InputError(f"{key} has shape {arrays[key].shape}, but the configuration asks for {shape}")
        dtypes = {str(a.dtype) for a in arrays.values()}
        if len(dtypes) != 1 or not dtypes <= {"float32", "float64"}:
            raise InputError(f"weights must all be float32 or all float64, not {', '.join(sorted(dtypes))}")
        self.config = config
        self.name = name
        self.dtype = dtypes.pop()
        self.sha256 = sha256 or model_sha256(config, arrays)
        self.device = device
        self.check = check
        self._tokenizer = tokenizer
        self._programs: dict[str, Callable[..., Any]] = {}
        self._framework = _FRAMEWORK.get(backend, "numpy")
        if self._framework == "numpy" and device != "cpu":
            raise InputError(f"device {device!r} needs backend='torch' or 'jax'; backend={backend!r} runs on the cpu")
        self._put = _placer(self._framework, device)
        with self._precision():
            self.weights: dict[str, Any] = {key: self._put(value) for key, value in arrays.items()}
            resolved = resolve_backend(next(iter(self.weights.values())), backend=backend)
        #: the scan backend in use, a string with the attributes `reason` and `asked`
        self.backend = resolved
        first = next(iter(self.weights.values()))
        #: name of the dtype that the model is computed in: wider than its own for float32 on NumPy, see `forward`
        self.arithmetic = str(np.dtype(arithmetic_dtype(first, backend))) if self._framework == "numpy" else self.dtype

    def __repr__(self) -> str:
        c = self.config
        return (
            f"MambaLM({self.name!r}, {c.family}, {c.n_layer} layers of width {c.d_model}, {c.parameters:,} parameters, "
            f"{self.dtype}, backend {self.backend})"
        )

    @property
    def n_layer(self) -> int:
        """Number of layers."""
        return self.config.n_layer

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns text into token ids.

        Raises:
            InputError: the checkpoint has no tokenizer.json (and not the 256 ids of bytes).
        """
        if self._tokenizer is None:
            raise InputError(f"{self.name} has no tokenizer.json: give token ids instead (--token-ids FILE.npy)")
        return self._tokenizer

    def to(self, *, dtype: str | None = None, backend: str | None = None, device: str | None = None) -> MambaLM:
        """The same model in another dtype, on another backend or device."""
        arrays = {key: _numpy(value).astype(dtype or self.dtype) for key, value in self.weights.items()}
        return MambaLM(
            self.config, arrays, name=self.name, sha256=self.sha256, backend=backend or self.backend.asked,
            device=device or self.device, tokenizer=self._tokenizer, check=self.check,
        )  # fmt: skip

    # ------------------------------------------------------------------ evaluation
    def __call__(
        self,
        tokens: Any,
        state: MambaState | None = None,
        *,
        return_state: bool = False,
        tap: Tap | None = None,
        logits: str = "all",
    ) -> Any:
        """Logits of the next token at every position.

        Args:
            tokens: (batch, length) integers.
            state: what an earlier call returned; the tokens then continue that text exactly.
            return_state: also return the state after the last token.
            tap: called with (layer, MixerSignals) for each layer.
            logits: "all", "last" (length 1) or "none" (None).

        Returns:
            (batch, length, vocab) in the model's dtype and array library; with `return_state` also a `MambaState`.

        Raises:
            InputError: tokens of another shape or dtype, or outside the vocabulary; a state of another batch.
        """
        ids = self._ids(tokens)
        if logits not in ("all", "last", "none"):
            raise InputError(f"logits={logits!r}: allowed are 'all', 'last' and 'none'")
        if state is not None:
            if len(state.ssm) != self.n_layer:
                raise InputError(f"the state is of a model with {len(state.ssm)} layers, not {self.n_layer}")
            if state.ssm[0] is not None and state.ssm[0].shape[0] != ids.shape[0]:
                raise InputError(f"the state is of a batch of {state.ssm[0].shape[0]}, the tokens of {ids.shape[0]}")
        with self._precision():
            if self._framework == "jax" and tap is None:
                out, state = self._compiled(ids, state, logits)
                return (out, state) if return_state else out
            return forward(
                self.weights, self.config, self._put(ids), state, return_state=return_state, tap=tap,
                backend=self.backend.asked, logits=logits,
            )  # fmt: skip

    def _compiled(self, ids: np.ndarray, state: MambaState | None, logits: str) -> tuple[Any, MambaState]:
        """The forward pass as one JAX program per shape: operation by operation, JAX compiles every one of them."""
        import jax

        if logits not in self._programs:
            config, backend = self.config, self.backend.asked

            def program(weights: Any, tokens: Any, conv: list[Any], ssm: list[Any]) -> Any:
                start = MambaState(conv, ssm)
                out, end = forward(weights, config, tokens, start, return_state=True, backend=backend, logits=logits)
                return out, end.conv, end.ssm

            self._programs[logits] = jax.jit(program)
        before = state or MambaState([None] * self.n_layer, [None] * self.n_layer)
        out, conv, ssm = self._programs[logits](self.weights, self._put(ids), before.conv, before.ssm)
        return out, MambaState(conv, ssm, before.position + ids.shape[1])

    def step(self, token: Any, state: MambaState | None = None) -> tuple[Any, MambaState]:
        """One token: `token` (batch,) gives logits (batch, vocab) and the next state."""
        token = _numpy(token)
        if token.ndim != 1:
            raise InputError(f"token has shape {token.shape}: must be (batch,)")
        logits, state = self(token[:, None], state, return_state=True)
        return logits[:, 0], state

    def generate(
        self, tokens: Any, n: int, *, seed: int = 0, temperature: float = 1.0, state: MambaState | None = None
    ) -> np.ndarray:
        """Continue a text by n sampled tokens.

        Args:
            tokens: (batch, length >= 1), the prompt.
            n: how many tokens to add.
            seed: of NumPy's generator; equal seeds give equal samples.
            temperature: divides the logits; 0 takes the largest one (greedy).
            state: to continue from, as in a call.

        Returns:
            The new token ids, int64 (batch, n).
        """
        ids = self._ids(tokens)
        if ids.shape[1] < 1:
            raise InputError("generate needs at least one token to start from")
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise InputError(f"n must be an integer >= 0, not {n!r}")
        if not 0 <= temperature < np.inf:
            raise InputError(f"temperature must be a finite number >= 0, not {temperature!r}")
        rng = np.random.default_rng(seed)
        made = np.empty((ids.shape[0], n), np.int64)
        logits, state = self(ids, state, return_state=True, logits="last")
        for i in range(n):
            scores = _numpy(logits)[:, -1].astype(np.float64)
            if temperature > 0:
                # argmax of logits plus Gumbel noise is a sample of their softmax
                scores = scores / temperature + rng.gumbel(size=scores.shape)
            made[:, i] = scores.argmax(axis=-1)
            if i + 1 < n:
                logits, state = self(made[:, i : i + 1], state, return_state=True)
        return made

    def stream(
        self,
        tokens: Any,
        tap: Tap | None = None,
        *,
        chunk: int = 1024,
        state: MambaState | None = None,
        on_logits: Callable[[int, Any], None] | None = None,
    ) -> MambaState:
        """Run a long text chunk by chunk through all layers, in memory that does not grow with its length.

        Runs at once (it is no generator). Equal to one call up to rounding.

        Args:
            tokens: (batch, length).
            tap: called with (layer, MixerSignals) for every layer of every chunk; `signals.start` is its position.
            chunk: tokens at a time.
            state: to continue from.
            on_logits: called with (start, logits (batch, <= chunk, vocab)) after each chunk. Without it no logits are
                computed.

        Returns:
            The state after the last token.
        """
        ids = self._ids(tokens)
        if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
            raise InputError(f"chunk must be a positive integer, not {chunk!r}")
        if state is None:
            state = MambaState([None] * self.n_layer, [None] * self.n_layer)
        for start in range(0, ids.shape[1], chunk):
            position = state.position
            logits, state = self(
                ids[:, start : start + chunk], state, return_state=True, tap=tap,
                logits="none" if on_logits is None else "all",
            )  # fmt: skip
            if on_logits is not None:
                on_logits(position, logits)
        return state

    def trace(
        self,
        tokens: Any,
        names: Iterable[str] | None = None,
        *,
        layers: Sequence[int] | None = None,
        channels: Sequence[int] | None = None,
        chunk: int = 1024,
        out: PathType | None = None,
    ) -> xr.DataTree:
        """Signals at every token as a labelled dataset: see `ssmtheory.mamba.trace.collect`, which this calls."""
        from ssmtheory.mamba.trace import DEFAULT_NAMES, collect

        names = DEFAULT_NAMES if names is None else names
        return collect(self, self._ids(tokens), names, layers=layers, channels=channels, chunk=chunk, out=out)

    def save(self, folder: PathType, **options: Any) -> str:
        """Write a checkpoint; options as of `ssmtheory.mamba.checkpoint.save_checkpoint`. Returns its sha256."""
        return save_checkpoint(folder, self.config, {k: _numpy(v) for k, v in self.weights.items()}, **options)

    # ------------------------------------------------------------------ internals
    def _ids(self, tokens: Any) -> np.ndarray:
        ids = _numpy(tokens)
        if ids.ndim != 2:
            raise InputError(f"tokens have shape {ids.shape}: must be (batch, length); a single text is tokens[None]")
        if ids.dtype.kind not in "iu":
            raise InputError(f"tokens are {ids.dtype}: must be integers")
        if ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < self.config.vocab_size):
            bad = ids[(ids < 0) | (ids >= self.config.vocab_size)].flat[0]
            raise InputError(f"token id {bad}: {self.name} has ids 0 to {self.config.vocab_size - 1}")
        return ids.astype(np.int64)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """JAX keeps 64-bit numbers only inside this context; the global flag is never touched."""
        if self._framework == "jax":
            import jax

            return jax.enable_x64(True)
        return contextlib.nullcontext()


def _placer(framework: str, device: str) -> Callable[[np.ndarray], Any]:
    if framework == "torch":
        torch = require("torch", "torch", "backend='torch'")
        try:
            where = torch.device(device)
            torch.empty(0, device=where)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise BackendError(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error
        return lambda array: torch.as_tensor(array, device=where)
    if framework == "jax":
        jax = require("jax", "jax", "backend='jax'")
        try:
            kind, _, index = device.replace("cuda", "gpu").partition(":")
            chosen = jax.devices(kind)[int(index or 0)]
        except (RuntimeError, ValueError, IndexError) as error:
            raise BackendError(f"jax has no device {device!r} here: {str(error).splitlines()[0]}") from error
        return lambda array: jax.device_put(array, chosen)
    return lambda array: array


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


# ---------------------------------------------------------------------- one mixer from arrays
def block(
    weights: Mapping[str, Any],
    hidden: Any,
    *,
    config: MambaConfig | None = None,
    prefix: str = "",
    conv_state: Any = None,
    state: Any = None,
    backend: str = "auto",
) -> MixerSignals:
    """Run a single Mamba mixer from plain arrays, whatever model it was taken from, and return its signals.

    Args:
        weights: "in_proj.weight", "conv1d.weight" (channel, width) or (channel, 1, width), "A_log", ... to arrays; a
            dot may be an underscore.
        hidden: (batch, length, d_model), what the mixer is fed with.
        config: family and sizes; by default those of the Mamba-1 mixer that the shapes imply.
        prefix: of the names, such as "mamba_" or "backbone.layers.3.mixer.".
        conv_state, state: to continue from, as in `MambaState`.
        backend: of the scan.

    Returns:
        `MixerSignals` with `residual` None; `update` is the mixer's output.

    Raises:
        InputError: a missing array, or shapes that contradict one another.
    """
    from ssmtheory.mamba.forward import arithmetic_dtype, mamba1_mixer, mamba2_mixer, rounded

    names = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    for dotted in ("in_proj.weight", "in_proj.bias", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight",
                   "dt_proj.bias", "norm.weight", "out_proj.weight", "out_proj.bias"):  # fmt: skip
        if (flat := dotted.replace(".", "_")) in names:
            names[dotted] = names.pop(flat)
    if "conv1d.weight" in names and names["conv1d.weight"].ndim == 2:
        names["conv1d.weight"] = names["conv1d.weight"][:, None, :]
    if config is None:
        for needed in ("in_proj.weight", "conv1d.weight", "dt_proj.weight", "A_log"):
            if needed not in names:
                raise InputError(f"no array {prefix}{needed}; there are {', '.join(sorted(weights))}")
        config = MambaConfig.mamba1(
            d_model=names["in_proj.weight"].shape[1], n_layer=1, vocab_size=1, d_inner=names["A_log"].shape[0],
            d_state=names["A_log"].shape[1], d_conv=names["conv1d.weight"].shape[-1],
            dt_rank=names["dt_proj.weight"].shape[1], conv_bias="conv1d.bias" in names,
            proj_bias="in_proj.bias" in names,
        )  # fmt: skip
    mixer = "backbone.layers.0.mixer."
    one_layer = parameter_shapes(config.with_(n_layer=1))
    for key, shape in ((k.removeprefix(mixer), s) for k, s in one_layer.items() if k.startswith(mixer)):
        if key not in names:
            raise InputError(f"no array {prefix}{key}; there are {', '.join(sorted(weights))}")
        if tuple(names[key].shape) != shape:
            raise InputError(f"{prefix}{key} has shape {tuple(names[key].shape)}: must be {shape}")
    if hidden.ndim != 3 or hidden.shape[-1] != config.d_model:
        raise InputError(f"hidden has shape {tuple(hidden.shape)}: must be (batch, length, {config.d_model})")
    run = mamba2_mixer if config.family == "mamba2" else mamba1_mixer
    wide, stored = arithmetic_dtype(names["A_log"], backend), hidden.dtype
    if wide != stored:
        names, hidden = {name: value.astype(wide) for name, value in names.items()}, hidden.astype(wide)
    signals, _ = run(hidden, names.get, config, conv_state, state, backend)
    return signals if wide == stored else rounded(signals, stored)


# ---------------------------------------------------------------------- finding and loading
def available() -> list[str]:
    """Names of the pretrained models that ship with the package."""
    base = resource_folder("weights")
    return sorted(path.parent.name for path in base.glob("*/config.json"))


def resolve_source(name: PathType) -> tuple[str, Path]:
    """The (display name, folder) of a model: an embedded name, a folder, or `hf:ORG/NAME[@REVISION]`.

    Raises:
        InputError: no such model; the message names the closest.
        MissingDependencyError: a hub model without huggingface_hub.
        CheckpointError: the hub does not have it, or cannot be reached.
    """
    text = str(name)
    if text.startswith("hf:"):
        return _download(text)
    path = Path(text)
    if path.is_dir():
        return path.resolve().name, path
    bundled = available()
    if text in bundled:
        return text, resource_folder("weights") / text
    listed = ", ".join(bundled) if bundled else "none are"
    suggestion = nearest(text, bundled).strip()
    lines = [f"no model {text!r}: it is neither bundled ({listed}) nor a folder with config.json"]
    if suggestion:
        lines.append(suggestion[0].lower() + suggestion[1:])
    lines.append("from the hub: --model hf:state-spaces/mamba-130m-hf")
    raise InputError("\n       ".join(lines))


def _download(source: str) -> tuple[str, Path]:
    repository, _, revision = source.removeprefix("hf:").partition("@")
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{source!r} is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION")
    try:
        hub = require("huggingface_hub", "hf")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{repository} is on the Hugging Face hub, which needs: pip install 'ssmtheory[hf]'"
        ) from error
    try:
        files = set(hub.HfApi().list_repo_files(repository, revision=revision or None))
        # one format only: a repository often carries the same weights twice
        weights = "*.safetensors" if any(f.endswith(".safetensors") for f in files) else "*.bin"
        folder = hub.snapshot_download(repository, revision=revision or None, allow_patterns=[*_WANTED, weights])
    except Exception as error:  # the hub's client raises its own, HTTP and OS errors
        folder = _cached(hub, repository, revision)
        if folder is None:
            said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise CheckpointError(f"{source} cannot be had from the Hugging Face hub: {said}") from error
    return source, Path(folder)


# what is fetched besides weights; never code
_WANTED = ("config.json", "tokenizer.json", "*.index.json")


def _cached(hub: Any, repository: str, revision: str) -> str | None:
    """The local copy of a repository, if a complete one is there: what makes a second run work offline."""
    for weights in ("*.safetensors", "*.bin"):
        try:
            folder = hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*_WANTED, weights], local_files_only=True
            )
        except (OSError, ValueError):  # LocalEntryNotFoundError: absent or incomplete
            continue
        if any(Path(folder).glob(weights)):
            return str(folder)
    return None


def load(
    name: PathType,
    *,
    dtype: str = "float32",
    backend: str = "auto",
    device: str = "cpu",
    check: bool = True,
) -> MambaLM | HybridLM:
    """Load a pretrained model and check that it computes what its authors' code computes.

    Args:
        name: an embedded model (`available()`), a folder with a checkpoint in the original or the Hugging Face layout,
            or `hf:ORG/NAME[@REVISION]`.
        dtype: "float32" or "float64", of weights, signals and logits (NumPy computes both in float64: see
            `ssmtheory.mamba.forward`).
        backend, device: as of `MambaLM`.
        check: compare with transformers on a few tokens where it is installed (an embedded model, whose sha256 is
            verified and which was compared when it was made, does not import it); otherwise require that one-shot,
            chunked and stepwise evaluation agree. `model.check` records which it was. False records that it was
            skipped.

    Returns:
        A `MambaLM`; for Jamba, Zamba2 and Bamba a `HybridLM`, which runs transformers and takes the mixers' signals.

    Raises:
        InputError, CheckpointError, MissingDependencyError, BackendError: the model cannot be found, read or run.
        SelfCheckError: it disagrees with its peer, or with itself.
    """
    from ssmtheory.mamba import adapters

    label, folder = resolve_source(name)
    raw = read_json(folder / "config.json")
    if isinstance(raw, dict) and raw.get("model_type") in _HYBRIDS:
        return adapters.load_hybrid(folder, name=label, dtype=dtype, backend=backend, check=check)
    read = read_checkpoint(folder, dtype=dtype)
    model = MambaLM(
        read.config, read.weights, name=label, sha256=read.sha256, backend=backend, device=device,
        tokenizer=find_tokenizer(folder, read.config.vocab_size),
    )  # fmt: skip
    embedded = folder.parent == resource_folder("weights")
    model.check = adapters.self_check(model, consult_peer=not embedded) if check else adapters.skipped()
    return model
