"""What a Mamba language model is made of: sizes, norms, and the shape of every parameter.

Glossary (code name: paper symbol, meaning):

    d_model      d     width of the residual stream
    d_inner      D     channels of the state space model (expand * d_model)
    d_state      N     state size of one channel
    d_conv             width of the causal convolution
    dt_rank      R     rank of the projection that makes Delta (Mamba-1, Falcon-Mamba)
    n_heads      H     heads of Mamba-2; d_inner = n_heads * head_dim (Mamba-1: every channel is a head)
    n_groups     G     groups of heads that share B and C (Mamba-2)

Mamba-1: Gu and Dao, arXiv 2312.00752, algorithm 2. Mamba-2: Dao and Gu, arXiv 2405.21060, section 7.
Falcon-Mamba: Zuo et al., arXiv 2410.05355 (RMS norm without weights on Delta, B and C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from ssmtheory.errors import CheckpointError, InputError, nearest

__all__ = ["FAMILIES", "MambaConfig", "parameter_shapes"]

FAMILIES = ("mamba1", "mamba2", "falcon_mamba")

# keyword arguments of mamba_ssm's Mamba and Mamba2 modules: those that decide shapes or arithmetic, and those that
# only matter at initialisation or choose a kernel
_SSM_CFG_USED = {
    "mamba1": {"d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias"},
    "mamba2": {"d_state", "d_conv", "expand", "headdim", "ngroups", "conv_bias", "bias", "dt_limit", "rmsnorm",
               "norm_before_gate", "D_has_hdim", "d_ssm"},
}  # fmt: skip
_SSM_CFG_IDLE = {
    "layer", "dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path", "conv_init", "A_init_range",
    "chunk_size", "use_mem_eff_path", "layer_idx", "device", "dtype", "sequence_parallel", "process_group",
}  # fmt: skip


@dataclass(frozen=True)
class MambaConfig:
    """Sizes and switches of a Mamba-1, Mamba-2 or Falcon-Mamba language model (immutable, checked when made).

    Use the constructors `mamba1`, `mamba2`, `falcon_mamba`, or read a checkpoint's config.json with `from_dict`.

    Args:
        family: "mamba1", "mamba2" or "falcon_mamba".
        d_model, n_layer, vocab_size: width, depth, and rows of the embedding (padding included).
        d_inner, d_state, d_conv: channels, states of a channel, width of the causal convolution.
        dt_rank: rank of Delta's projection; 0 for Mamba-2, which projects Delta directly.
        n_groups, head_dim, n_heads: Mamba-2's grouping; 1, 1, d_inner otherwise.
        norm: norm of the residual stream before each mixer and before the head, "rms" or "layer".
        norm_eps: its epsilon (Mamba-2's gated norm uses it, too).
        conv_bias, proj_bias: whether conv1d, and in_proj with out_proj, have a bias.
        residual_in_fp32: a checkpoint's remark on reduced precision; without effect in float32 and float64.
        tie_embeddings: the head is the transposed embedding.
        time_step_limit: Delta is clamped to this interval (Mamba-2).
        mixer_rms_eps: epsilon of Falcon-Mamba's norms of Delta, B and C.
        mixer_norm, norm_before_gate: Mamba-2's norm after the scan, and its order with the gate.
        skip_per_channel: Mamba-2's D has an entry per channel instead of per head.

    Raises:
        InputError: a size is not a positive integer, or two sizes contradict one another.

    >>> MambaConfig.mamba1(d_model=128, n_layer=12, vocab_size=256).d_inner
    256
    """

    family: str
    d_model: int
    n_layer: int
    vocab_size: int
    d_inner: int
    d_state: int
    d_conv: int
    dt_rank: int
    n_groups: int
    head_dim: int
    n_heads: int
    norm: str = "rms"
    norm_eps: float = 1e-5
    conv_bias: bool = True
    proj_bias: bool = False
    residual_in_fp32: bool = True
    tie_embeddings: bool = True
    time_step_limit: tuple[float, float] = (0.0, math.inf)
    mixer_rms_eps: float = 1e-6
    mixer_norm: bool = True
    norm_before_gate: bool = False
    skip_per_channel: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(
                f"unknown Mamba family {self.family!r}: allowed are {', '.join(FAMILIES)}."
                f"{nearest(str(self.family), FAMILIES)}"
            )
        for name in ("d_model", "n_layer", "vocab_size", "d_inner", "d_state", "d_conv", "n_groups", "head_dim",
                     "n_heads"):  # fmt: skip
            _positive_int(name, getattr(self, name))
        if self.family == "mamba2":
            if self.dt_rank != 0:
                raise InputError(f"dt_rank is {self.dt_rank!r}, but Mamba-2 has no low-rank Delta: it must be 0")
        else:
            _positive_int("dt_rank", self.dt_rank)
            if (self.n_groups, self.head_dim, self.n_heads) != (1, 1, self.d_inner):
                raise InputError(
                    f"{self.family} has n_groups=1, head_dim=1 and n_heads=d_inner={self.d_inner}, "
                    f"not {self.n_groups}, {self.head_dim} and {self.n_heads}"
                )
        if self.n_heads * self.head_dim != self.d_inner:
            raise InputError(
                f"d_inner={self.d_inner} is not n_heads={self.n_heads} times head_dim={self.head_dim} "
                f"(= {self.n_heads * self.head_dim})"
            )
        if self.n_heads % self.n_groups:
            raise InputError(f"n_heads={self.n_heads} is not a multiple of n_groups={self.n_groups}")
        if self.norm not in ("rms", "layer"):
            raise InputError(f"norm is {self.norm!r}: allowed are 'rms' and 'layer'")
        for name in ("norm_eps", "mixer_rms_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InputError(f"{name} must be a finite number >= 0, not {value!r}")
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise InputError(f"{field.name} must be true or false, not {getattr(self, field.name)!r}")
        low, high = self.time_step_limit
        if not (isinstance(low, float) and isinstance(high, float) and 0 <= low < high):
            raise InputError(f"time_step_limit must be an interval 0 <= low < high, not {self.time_step_limit!r}")

    @property
    def conv_channels(self) -> int:
        """Channels of the causal convolution: D, and for Mamba-2 also those of B and C."""
        return self.d_inner + (2 * self.n_groups * self.d_state if self.family == "mamba2" else 0)

    @property
    def parameters(self) -> int:
        """Number of parameters (a tied head is counted once)."""
        return sum(math.prod(shape) for shape in parameter_shapes(self).values())

    def with_(self, **changes: Any) -> MambaConfig:
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)

    # ------------------------------------------------------------------ constructors
    @classmethod
    def mamba1(
        cls,
        *,
        d_model: int,
        n_layer: int,
        vocab_size: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        **other: Any,
    ) -> MambaConfig:
        """A Mamba-1 model by the names of mamba_ssm; dt_rank "auto" is ceil(d_model / 16).

        >>> MambaConfig.mamba1(d_model=768, n_layer=24, vocab_size=50280).dt_rank
        48
        """
        return cls._with_dt_rank("mamba1", d_model, n_layer, vocab_size, d_state, d_conv, expand, dt_rank, other)

    @classmethod
    def falcon_mamba(
        cls,
        *,
        d_model: int,
        n_layer: int,
        vocab_size: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        **other: Any,
    ) -> MambaConfig:
        """A Falcon-Mamba model: Mamba-1 with RMS norms (no weights) of Delta, B and C inside the mixer."""
        return cls._with_dt_rank("falcon_mamba", d_model, n_layer, vocab_size, d_state, d_conv, expand, dt_rank, other)

    @classmethod
    def _with_dt_rank(
        cls, family: str, d_model: int, n_layer: int, vocab_size: int, d_state: int, d_conv: int, expand: float,
        dt_rank: int | str, other: dict[str, Any],
    ) -> MambaConfig:  # fmt: skip
        _positive_int("d_model", d_model)
        d_inner = other.pop("d_inner", None)
        if d_inner is None:
            d_inner = _expanded(d_model, expand)
        if isinstance(dt_rank, str):
            if dt_rank != "auto":
                raise InputError(f"dt_rank must be an integer or 'auto', not {dt_rank!r}")
            dt_rank = math.ceil(d_model / 16)
        return cls(
            family=family, d_model=d_model, n_layer=n_layer, vocab_size=vocab_size, d_inner=d_inner, d_state=d_state,
            d_conv=d_conv, dt_rank=dt_rank, n_groups=1, head_dim=1, n_heads=d_inner, **other,
        )  # fmt: skip

    @classmethod
    def mamba2(
        cls,
        *,
        d_model: int,
        n_layer: int,
        vocab_size: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: float = 2,
        head_dim: int = 64,
        n_groups: int = 1,
        **other: Any,
    ) -> MambaConfig:
        """A Mamba-2 model; n_heads = expand * d_model / head_dim.

        >>> MambaConfig.mamba2(d_model=768, n_layer=24, vocab_size=50288).n_heads
        24
        """
        _positive_int("d_model", d_model)
        _positive_int("head_dim", head_dim)
        d_inner = _expanded(d_model, expand)
        if d_inner % head_dim:
            raise InputError(f"expand * d_model = {d_inner} is not a multiple of head_dim={head_dim}")
        return cls(
            family="mamba2", d_model=d_model, n_layer=n_layer, vocab_size=vocab_size, d_inner=d_inner,
            d_state=d_state, d_conv=d_conv, dt_rank=0, n_groups=n_groups, head_dim=head_dim,
            n_heads=d_inner // head_dim, **other,
        )  # fmt: skip

    # ------------------------------------------------------------------ config.json
    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> MambaConfig:
        """Read a config.json, in the Hugging Face layout (`model_type`) or the original one (`d_model`, `ssm_cfg`).

        Raises:
            CheckpointError: a key is missing, has an impossible value, or asks for something that is not supported.
        """
        if not isinstance(config, dict):
            raise CheckpointError(f"config.json must hold an object, not {type(config).__name__}")
        try:
            if "model_type" in config:
                return cls._from_huggingface(config)
            if "d_model" in config:
                return cls._from_original(config)
        except CheckpointError:
            raise
        except InputError as error:
            raise CheckpointError(f"config.json: {error}") from error
        raise CheckpointError(
            "config.json has neither model_type (Hugging Face layout) nor d_model (original state-spaces layout)"
        )

    @classmethod
    def _from_original(cls, config: dict[str, Any]) -> MambaConfig:
        ssm = config.get("ssm_cfg")
        ssm = {} if ssm is None else ssm
        if not isinstance(ssm, dict):
            raise CheckpointError(f"config.json: ssm_cfg must be an object, not {ssm!r}")
        layer = ssm.get("layer", "Mamba1")
        if layer not in ("Mamba1", "Mamba2"):
            raise CheckpointError(f"config.json: ssm_cfg.layer is {layer!r}: supported are 'Mamba1' and 'Mamba2'")
        family = {"Mamba1": "mamba1", "Mamba2": "mamba2"}[layer]
        known = _SSM_CFG_USED[family] | _SSM_CFG_IDLE
        for key in ssm:
            if key not in known:
                raise CheckpointError(f"config.json: unknown key ssm_cfg.{key}.{nearest(key, sorted(known))}")
        if config.get("attn_layer_idx"):
            raise CheckpointError(
                f"config.json: attention layers {config['attn_layer_idx']!r} (attn_layer_idx): the original layout is "
                "read for pure Mamba models only"
            )
        if config.get("d_intermediate", 0):
            raise CheckpointError(
                f"config.json: d_intermediate is {config['d_intermediate']!r}: models with MLP blocks between the "
                "mixers are not supported"
            )
        multiple = _get_int(config, "pad_vocab_size_multiple", 8)
        vocab = _get_int(config, "vocab_size")
        vocab += -vocab % multiple
        shared: dict[str, Any] = {
            "d_model": _get_int(config, "d_model"),
            "n_layer": _get_int(config, "n_layer"),
            "vocab_size": vocab,
            "d_conv": _get_int(ssm, "d_conv", 4),
            "expand": _get_number(ssm, "expand", 2),
            "norm": "rms" if _get_bool(config, "rms_norm", True) else "layer",
            "norm_eps": _get_number(config, "norm_epsilon", 1e-5),
            "conv_bias": _get_bool(ssm, "conv_bias", True),
            "proj_bias": _get_bool(ssm, "bias", False),
            "residual_in_fp32": _get_bool(config, "residual_in_fp32", True),
            "tie_embeddings": _get_bool(config, "tie_embeddings", True),
        }
        if family == "mamba1":
            rank = ssm.get("dt_rank", "auto")
            return cls.mamba1(d_state=_get_int(ssm, "d_state", 16), dt_rank=rank, **shared)
        made = cls.mamba2(
            d_state=_get_int(ssm, "d_state", 128),
            head_dim=_get_int(ssm, "headdim", 64),
            n_groups=_get_int(ssm, "ngroups", 1),
            time_step_limit=_interval("ssm_cfg.dt_limit", ssm.get("dt_limit", (0.0, math.inf))),
            mixer_norm=_get_bool(ssm, "rmsnorm", True),
            norm_before_gate=_get_bool(ssm, "norm_before_gate", False),
            skip_per_channel=_get_bool(ssm, "D_has_hdim", False),
            **shared,
        )
        if ssm.get("d_ssm") not in (None, made.d_inner):
            raise CheckpointError(
                f"config.json: ssm_cfg.d_ssm is {ssm['d_ssm']!r}: a mixer with a gated-MLP part beside the state space "
                f"model is not supported (d_ssm must be {made.d_inner} or absent)"
            )
        return made

    @classmethod
    def _from_huggingface(cls, config: dict[str, Any]) -> MambaConfig:
        kind = config["model_type"]
        known = {"mamba": "mamba1", "mamba2": "mamba2", "falcon_mamba": "falcon_mamba"}
        if not isinstance(kind, str) or kind not in known:
            raise CheckpointError(
                f"config.json: model_type is {kind!r}: whole models are read for {', '.join(known)}; "
                "hybrids (jamba, zamba2, bamba) run through transformers"
            )
        act = config.get("hidden_act", "silu")
        if act not in ("silu", "swish"):
            raise CheckpointError(f"config.json: hidden_act is {act!r}: only 'silu' is supported")
        shared: dict[str, Any] = {
            "d_model": _get_int(config, "hidden_size"),
            "n_layer": _get_int(config, "num_hidden_layers"),
            "vocab_size": _get_int(config, "vocab_size"),
            "d_conv": _get_int(config, "conv_kernel", 4),
            "expand": _get_number(config, "expand", 2),
            "norm_eps": _get_number(config, "layer_norm_epsilon", 1e-5),
            "conv_bias": _get_bool(config, "use_conv_bias", True),
            "proj_bias": _get_bool(config, "use_bias", False),
            "residual_in_fp32": _get_bool(config, "residual_in_fp32", True),
            "tie_embeddings": _get_bool(config, "tie_word_embeddings", kind != "mamba2"),
        }
        if kind == "mamba2":
            made = cls.mamba2(
                d_state=_get_int(config, "state_size", 128),
                head_dim=_get_int(config, "head_dim", 64),
                n_groups=_get_int(config, "n_groups", 8),
                time_step_limit=_interval("time_step_limit", config.get("time_step_limit", (0.0, math.inf))),
                **shared,
            )
            heads = _get_int(config, "num_heads", 128)
            if heads != made.n_heads:
                raise CheckpointError(
                    f"config.json: num_heads is {heads}, but expand * hidden_size / head_dim is {made.n_heads}"
                )
            return made
        if config.get("intermediate_size") is not None:
            # transformers lets an explicit intermediate_size win over expand (falcon-mamba-7b relies on it)
            shared["d_inner"] = _get_int(config, "intermediate_size")
        shared["d_state"] = _get_int(config, "state_size", 16)
        shared["dt_rank"] = config.get("time_step_rank", "auto")
        if kind == "mamba":
            return cls.mamba1(**shared)
        return cls.falcon_mamba(mixer_rms_eps=_get_number(config, "mixer_rms_eps", 1e-6), **shared)

    def to_dict(self, layout: str = "original") -> dict[str, Any]:
        """The config.json of this model: layout "original" (state-spaces) or "huggingface".

        Raises:
            InputError: the layout is unknown or cannot express this model (Falcon-Mamba has no original layout; a
                LayerNorm, or Mamba-2's variants of norm and skip, have no Hugging Face one).
        """
        if layout == "original":
            if self.family == "falcon_mamba":
                raise InputError("Falcon-Mamba has no original state-spaces layout: use layout='huggingface'")
            ssm: dict[str, Any] = {"d_state": self.d_state, "d_conv": self.d_conv, "conv_bias": self.conv_bias,
                                   "bias": self.proj_bias, "expand": self._expand()}  # fmt: skip
            if self.family == "mamba1":
                ssm |= {"layer": "Mamba1", "dt_rank": self.dt_rank}
            else:
                ssm |= {"layer": "Mamba2", "headdim": self.head_dim, "ngroups": self.n_groups,
                        "rmsnorm": self.mixer_norm, "norm_before_gate": self.norm_before_gate,
                        "D_has_hdim": self.skip_per_channel}  # fmt: skip
                if self.time_step_limit != (0.0, math.inf):
                    ssm["dt_limit"] = [_json_number(x) for x in self.time_step_limit]
            return {
                "d_model": self.d_model, "n_layer": self.n_layer, "vocab_size": self.vocab_size, "ssm_cfg": ssm,
                "rms_norm": self.norm == "rms", "norm_epsilon": self.norm_eps,
                "residual_in_fp32": self.residual_in_fp32, "fused_add_norm": False, "pad_vocab_size_multiple": 1,
                "tie_embeddings": self.tie_embeddings,
            }  # fmt: skip
        if layout != "huggingface":
            raise InputError(f"unknown layout {layout!r}.{nearest(str(layout), ('original', 'huggingface'))}")
        if self.norm != "rms" or not self.mixer_norm or self.norm_before_gate or self.skip_per_channel:
            raise InputError("this model's norms or per-channel skip have no Hugging Face layout: use 'original'")
        kind = {"mamba1": "mamba", "mamba2": "mamba2", "falcon_mamba": "falcon_mamba"}[self.family]
        made: dict[str, Any] = {
            "model_type": kind,
            "architectures": [{"mamba": "Mamba", "mamba2": "Mamba2", "falcon_mamba": "FalconMamba"}[kind]
                              + "ForCausalLM"],
            "hidden_size": self.d_model, "num_hidden_layers": self.n_layer, "vocab_size": self.vocab_size,
            "state_size": self.d_state, "conv_kernel": self.d_conv, "expand": self._expand(),
            "layer_norm_epsilon": self.norm_eps, "use_conv_bias": self.conv_bias, "use_bias": self.proj_bias,
            "residual_in_fp32": self.residual_in_fp32, "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
        }  # fmt: skip
        if kind == "mamba2":
            made |= {"num_heads": self.n_heads, "head_dim": self.head_dim, "n_groups": self.n_groups}
            if self.time_step_limit != (0.0, math.inf):
                made["time_step_limit"] = [_json_number(x) for x in self.time_step_limit]
        else:
            made |= {"time_step_rank": self.dt_rank, "intermediate_size": self.d_inner}
        if kind == "falcon_mamba":
            made["mixer_rms_eps"] = self.mixer_rms_eps
        return made

    def _expand(self) -> int | float:
        return self.d_inner // self.d_model if self.d_inner % self.d_model == 0 else self.d_inner / self.d_model


def parameter_shapes(config: MambaConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter's name (original state-spaces naming) and shape, in the order of the forward pass.

    `lm_head.weight` is absent when the embeddings are tied.

    >>> shapes = parameter_shapes(MambaConfig.mamba1(d_model=8, n_layer=1, vocab_size=5))
    >>> shapes["backbone.layers.0.mixer.x_proj.weight"]     # [dt | B | C] rows: R + 2 N
    (33, 16)
    """
    c = config
    shapes: dict[str, tuple[int, ...]] = {"backbone.embedding.weight": (c.vocab_size, c.d_model)}
    for i in range(c.n_layer):
        layer = f"backbone.layers.{i}."
        shapes |= _norm_shapes(layer + "norm", c)
        m = layer + "mixer."
        in_rows = 2 * c.d_inner if c.family != "mamba2" else c.d_inner + c.conv_channels + c.n_heads
        shapes[m + "in_proj.weight"] = (in_rows, c.d_model)
        if c.proj_bias:
            shapes[m + "in_proj.bias"] = (in_rows,)
        shapes[m + "conv1d.weight"] = (c.conv_channels, 1, c.d_conv)
        if c.conv_bias:
            shapes[m + "conv1d.bias"] = (c.conv_channels,)
        if c.family == "mamba2":
            shapes[m + "dt_bias"] = (c.n_heads,)
            shapes[m + "A_log"] = (c.n_heads,)
            shapes[m + "D"] = (c.d_inner if c.skip_per_channel else c.n_heads,)
            if c.mixer_norm:
                shapes[m + "norm.weight"] = (c.d_inner,)
        else:
            shapes[m + "x_proj.weight"] = (c.dt_rank + 2 * c.d_state, c.d_inner)
            shapes[m + "dt_proj.weight"] = (c.d_inner, c.dt_rank)
            shapes[m + "dt_proj.bias"] = (c.d_inner,)
            shapes[m + "A_log"] = (c.d_inner, c.d_state)
            shapes[m + "D"] = (c.d_inner,)
        shapes[m + "out_proj.weight"] = (c.d_model, c.d_inner)
        if c.proj_bias:
            shapes[m + "out_proj.bias"] = (c.d_model,)
    shapes |= _norm_shapes("backbone.norm_f", c)
    if not c.tie_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, c.d_model)
    return shapes


def _norm_shapes(name: str, config: MambaConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {name + ".weight": (config.d_model,)}
    if config.norm == "layer":
        shapes[name + ".bias"] = (config.d_model,)
    return shapes


# a size beyond this is a mistake or an attack, and every product of two of them still fits an int64
_LARGEST = 1 << 26


def _positive_int(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
        raise InputError(f"{name} must be an integer from 1 to {_LARGEST}, not {value!r}")


def _expanded(d_model: int, expand: Any) -> int:
    if isinstance(expand, bool) or not isinstance(expand, (int, float)) or not 0 < expand <= 1024:
        raise InputError(f"expand must be a number in (0, 1024], not {expand!r}")
    return int(expand * d_model)


def _get_int(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if value is None:
        raise CheckpointError(f"config.json lacks {key}")
    _positive_int(key, value)
    return int(value)


def _get_number(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError(f"config.json: {key} must be a number, not {value!r}")
    return value


def _get_bool(config: dict[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json: {key} must be true or false, not {value!r}")
    return value


def _interval(name: str, value: Any) -> tuple[float, float]:
    # JSON has no infinity: transformers writes {"__float__": "Infinity"} or the token Infinity
    ends = []
    for end in value if isinstance(value, (list, tuple)) else ():
        if isinstance(end, dict) and end.get("__float__") == "Infinity":
            end = math.inf
        if isinstance(end, bool) or not isinstance(end, (int, float)):
            break
        ends.append(float(end))
    if len(ends) != 2:
        raise CheckpointError(f"config.json: {name} must be two numbers, not {value!r}")
    return ends[0], ends[1]


def _json_number(x: float) -> Any:
    # written as transformers writes it, so that both read it back
    return {"__float__": "Infinity"} if math.isinf(x) else x
