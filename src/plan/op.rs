//! The ops: what each computes from which rows, with which state.
//!
//! | op | rows in → out | state | formula, source |
//! |---|---|---|---|
//! | embed | token → d | – | `y = E[⌊token/u⌋ mod V]`; u = 1 but where a token says several things |
//! | linear | d_in → d_out | – | `y = act(W x + b)`; GLU: `(W₁x+b₁)·σ(W₂x+b₂)` (Dauphin et al. 2017, arXiv 1612.08083) |
//! | norm | d → d | – | LayerNorm (Ba et al. 2016, arXiv 1607.06450), RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467) |
//! | conv | d → d | last k−1 rows | `y_t = act(b + Σ_j w_j x_{t−k+1+j})`, depthwise, causal (Mamba, arXiv 2312.00752, §3.4) |
//! | scan | d → d | h \[N, d\] | `h ← Ā h + B̄ u`, `y = C h + D u` (S4D, arXiv 2206.11893; Mamba, arXiv 2312.00752, §3.2) |
//! | gate | d, d → d | – | `y = x · act(z)` |
//! | activate | d → d | – | `y = act(x)` |
//! | add | d, d → d | – | `y = a + b` |
//! | film | d → d | – | `y = x·(1 + s) + t`, (s, t) a view of 2d columns (Perez et al. 2018, arXiv 1709.07871) |
//! | delay | d → d | the rows held | `y_t = x_{t−r}` |
//! | frame | p rows → 1 | last w−1 rows | the last w rows side by side, oldest first |
//! | overlap | 1 row → p rows | last coarse rows | `y_t = Σ_k z_{⌊t/p⌋−s−k}[t mod p + kp]` |
//! | dropout | d → d | – | training only: `y = x·m/(1−r)` (Srivastava et al. 2014, JMLR 15); identity elsewhere |
//!
//! Each op's page says what [`Plan::cost`](super::Plan::cost) counts for one row of its output: multiply-adds (two floating-point
//! operations each), exponentials and the like, bytes of weights read, at four bytes a number, and bytes of state that a stream holds.

use super::{ParamId, StateId, ValueId, View};

/// An elementwise function applied where a product is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// The identity.
    None,
    /// `x·σ(x)`.
    Silu,
    /// `x·Φ(x)` with the error function (Hendrycks & Gimpel 2016, arXiv 1606.08415), as PyTorch's default.
    Gelu,
    /// `max(x, 0)`.
    Relu,
    /// `1/(1+e^−x)`.
    Sigmoid,
    /// `tanh x`.
    Tanh,
    /// `ln(1+e^x)`; the identity above 20, as in Mamba.
    Softplus,
    /// Of a linear op only: the first half of the outputs times the sigmoid of the second half.
    Glu,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// `(x − mean)/√(var + ε)·w + b`.
    Layer,
    /// `x/√(mean(x²) + ε)·w`.
    Rms,
}

/// How a continuous time-invariant system becomes a recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Zero-order hold: `Ā = e^{ΔA}`, `B̄ = (Ā − 1)/A` (S4D, arXiv 2206.11893).
    Zoh,
    /// Bilinear: `Ā = (1 + ΔA/2)/(1 − ΔA/2)`, `B̄ = Δ/(1 − ΔA/2)` (the same).
    Bilinear,
}

/// Where a scan's Ā, B̄ and C come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dynamics {
    /// Mamba: per row. The op's inputs are (u \[d\], Δ \[d\], B \[N\], C \[N\]); complex B and C are 2N wide, real and
    /// imaginary parts interleaved. `Ā = e^{ΔA}`, `B̄ = Δ·B` (Euler, not the zero-order hold; arXiv 2312.00752, §3.2,
    /// algorithm 2).
    Selective,
    /// S4D: fixed. The op's input is (u \[d\]); B = 1.
    Invariant {
        /// log Δ, `[d]`.
        log_dt: ParamId,
        /// C, `[d, N]`, or `[d, N, 2]` for complex A.
        c: ParamId,
        /// The discretisation.
        rule: Rule,
    },
}

/// The diagonal recurrence: `h ← Ā·h + B̄·u`; `y = C·h + D·u` for real A, `y = 2·Re(C·h) + D·u` for complex A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// Channels.
    pub d: usize,
    /// State size N per channel (complex A: N conjugate pairs).
    pub n: usize,
    /// log(−Re A), `[d, N]`.
    pub a_log: ParamId,
    /// Im A, `[d, N]`; real A without it.
    pub a_imag: Option<ParamId>,
    /// D, `[d]`.
    pub skip: ParamId,
    /// Selective or time-invariant.
    pub dynamics: Dynamics,
}

impl Scan {
    /// Whether A (and so h, B, C) is complex.
    pub fn is_complex(&self) -> bool {
        self.a_imag.is_some()
    }

    /// Rows of h: N, or 2N for complex A (real parts, then imaginary parts).
    pub fn state_rows(&self) -> usize {
        if self.is_complex() { 2 * self.n } else { self.n }
    }
}

/// What an op computes; shapes are in the table of the module's page.
#[derive(Clone, Debug, PartialEq, Hash)]
pub enum OpKind {
    /// Rows of a table, picked by the input's tokens.
    ///
    /// No multiply-adds; 4·d bytes of weights.
    Embed {
        /// `[V, d]`.
        table: ParamId,
        /// u: of a token `a + u·b`, with a below u, this table is of b.
        unit: usize,
    },
    /// A matrix product, its bias and its activation.
    ///
    /// m·d_in multiply-adds (m = d_out, 2·d_out for GLU) and m additions of the bias; d_out exponentials, none for ReLU and without an
    /// activation; 4·m·(d_in + 1) bytes of weights, 4·m·d_in without a bias.
    Linear {
        /// `[d_out, d_in]` (2·d_out rows for GLU).
        weight: ParamId,
        /// `[d_out]` (2·d_out for GLU).
        bias: Option<ParamId>,
        /// Applied to each output.
        act: Act,
    },
    /// LayerNorm or RMSNorm over the row.
    ///
    /// 3·d multiply-adds; 8·d bytes of weights, 4·d for RMSNorm.
    Norm {
        /// Which.
        kind: NormKind,
        /// `[d]`.
        weight: ParamId,
        /// `[d]`, LayerNorm only.
        bias: Option<ParamId>,
        /// Added to the variance, as f32 bits so that plans compare and hash exactly.
        eps_bits: u32,
    },
    /// Depthwise causal convolution over rows.
    ///
    /// d·k multiply-adds; d exponentials, none for ReLU and without an activation; 4·d·(k + 1) bytes of weights, 4·d·k without a bias;
    /// 4·d·(k − 1) bytes of state.
    Conv {
        /// `[d, k]`, oldest tap first.
        weight: ParamId,
        /// `[d]`.
        bias: Option<ParamId>,
        /// Taps k.
        taps: usize,
        /// Applied to each output.
        act: Act,
    },
    /// The state-space recurrence.
    ///
    /// | | multiply-adds | exponentials | bytes of weights | bytes of state |
    /// |---|---|---|---|---|
    /// | selective, real | 3·d·N + 1.5·d | d·N | 4·d·(N + 1) | 4·d·N |
    /// | selective, complex | 10·d·N + 1.5·d | 3·d·N | 4·d·(2·N + 1) | 8·d·N |
    /// | invariant, real | 3·d·N + d | – | 4·d·(2·N + 2) | 4·d·N |
    /// | invariant, complex | 8·d·N + d | – | 4·d·(4·N + 2) | 8·d·N |
    Scan(Scan),
    /// `y = x·act(z)` of two views.
    ///
    /// d multiplications; d exponentials, none for ReLU and without an activation.
    Gate {
        /// Applied to the second view.
        act: Act,
    },
    /// `y = act(x)`.
    ///
    /// No multiply-adds; d exponentials, none for ReLU.
    Activate {
        /// The function.
        act: Act,
    },
    /// `y = a + b` of two views.
    ///
    /// d additions.
    Add,
    /// `y = x·(1 + s) + t`; the second view holds s, then t.
    ///
    /// d multiply-adds.
    Film,
    /// The input, `rows` rows later (zeros before).
    ///
    /// No multiply-adds; 4·rows·d bytes of state.
    Delay {
        /// How many rows later.
        rows: usize,
    },
    /// Each `period` rows in, one row out: the last `window` rows side by side, oldest first.
    ///
    /// No multiply-adds; 4·(window − 1)·d bytes of state, d wide as the input.
    Frame {
        /// Rows in per row out.
        period: usize,
        /// Rows side by side.
        window: usize,
    },
    /// Each row in, `period` rows out, overlapped and added, `shift` coarse rows later.
    ///
    /// (overlap − 1)·d additions, d wide as the output; 4·(shift + overlap − 1)·d_in bytes of state.
    Overlap {
        /// Rows out per row in.
        period: usize,
        /// Coarse rows between a row's completion and its first use.
        shift: usize,
        /// Coarse rows that overlap at one fine row.
        overlap: usize,
    },
    /// In training, zeroes a share of the channels; elsewhere the identity.
    ///
    /// Nothing where it is the identity.
    Dropout {
        /// The share, as f32 bits.
        rate_bits: u32,
    },
}

impl OpKind {
    /// The op's short name, as in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embed { .. } => "embed",
            Self::Linear { .. } => "linear",
            Self::Norm { .. } => "norm",
            Self::Conv { .. } => "conv",
            Self::Scan(s) if matches!(s.dynamics, Dynamics::Selective) => "scan (selective)",
            Self::Scan(_) => "scan (invariant)",
            Self::Gate { .. } => "gate",
            Self::Activate { .. } => "activate",
            Self::Add => "add",
            Self::Film => "film",
            Self::Delay { .. } => "delay",
            Self::Frame { .. } => "frame",
            Self::Overlap { .. } => "overlap",
            Self::Dropout { .. } => "dropout",
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Op {
    /// Its name, e.g. `blocks.0.mixer.in_proj`.
    pub name: String,
    /// What it computes.
    pub kind: OpKind,
    /// What it reads.
    pub inputs: Vec<View>,
    /// What it writes, whole.
    pub output: ValueId,
    /// What it carries across rows.
    pub state: Option<StateId>,
}

impl OpKind {
    /// The parameters it reads, in a fixed order.
    pub fn params(&self) -> impl Iterator<Item = super::ParamId> {
        let mut ids = [None; 5];
        match self {
            Self::Embed { table, .. } => ids[0] = Some(*table),
            Self::Linear { weight, bias, .. }
            | Self::Norm { weight, bias, .. }
            | Self::Conv { weight, bias, .. } => {
                ids[..2].copy_from_slice(&[Some(*weight), *bias]);
            }
            Self::Scan(scan) => {
                ids[..3].copy_from_slice(&[Some(scan.a_log), scan.a_imag, Some(scan.skip)]);
                if let Dynamics::Invariant { log_dt, c, .. } = scan.dynamics {
                    ids[3..].copy_from_slice(&[Some(log_dt), Some(c)]);
                }
            }
            Self::Gate { .. }
            | Self::Activate { .. }
            | Self::Add
            | Self::Film
            | Self::Delay { .. }
            | Self::Frame { .. }
            | Self::Overlap { .. }
            | Self::Dropout { .. } => {}
        }
        ids.into_iter().flatten()
    }
}
