//! Parity with the outside judges: every executor against the numbers in `tests/goldens` (its README says where each
//! comes from). `cargo test --test parity -- --nocapture` prints the measured errors.
//!
//! The error of a against the truth b is max|a − b| / max|b| over the whole tensor, unless a bound says otherwise.

mod golden;
mod language;
mod ops;
mod report;
mod run;
mod s4d;
mod selective;
mod upstream;

/// Every tolerance of these tests.
mod bounds {
    /// Any op in f32 against float64, gradients too.
    pub const OP: f64 = 1e-5;
    /// Any op in f64: what the rounding of the stored numbers to f32 leaves.
    pub const OP_F64: f64 = 5e-7;
    /// The same where a number that the op is given was itself rounded on the way: Δ after its softplus, log(−Re A).
    pub const ROUNDED_F64: f64 = 2e-6;
    /// The gradients of A in `selective_scan_real_b1_t4097_d1_n1`, in f32: one number, the sum of 4,097 terms whose sizes add up to
    /// 593 times it, so that half a unit in the last place of every term is 593·2⁻²⁴ of the sum. In f64 they are held to
    /// [`OP_F64`] like all others.
    pub const CANCELLING_SUM: f64 = 3.5e-5;
    /// Ā and B̄, computed in f64 and rounded once.
    pub const BARS: f64 = 1e-6;
    /// A time-invariant scan from its continuous parameters, on what keeps Ā and B̄ in f32. Looser than [`OP`], because rounding an
    /// exact Ā to f32 already moves y by up to 9.4e-6, whatever is then computed with it.
    const END_TO_END: f64 = 2e-5;
    /// The golden of the slowest modes (|Ā| = 0.9993 over 4,097 rows), and what rounding Ā and B̄ to f32 moves there by itself,
    /// all else in float64: above [`END_TO_END`], so [`OP`] on top of it is what is allowed.
    const SLOWEST: &str = "s4d_bilinear_b1_t4097_d1_n16";
    const MOVED: [(&str, f64); 3] = [("h_T", 9.1e-5), ("grad_log_A_real", 4.1e-5), ("grad_A_imag", 4.5e-5)];

    /// The bound of a quantity of a time-invariant scan end to end.
    pub fn end_to_end(golden: &str, quantity: &str) -> f64 {
        match MOVED.iter().find(|moved| golden == SLOWEST && moved.0 == quantity) {
            Some((_, moved)) => OP + moved,
            None => END_TO_END,
        }
    }

    /// Logits of a language model, absolute.
    pub const LOGITS: f64 = 1e-4;
    /// Gradients and states of a whole language model.
    pub const MODEL: f64 = 1e-4;
    /// How far the tanh form of GELU must be from ours, for the judges to tell the two apart.
    pub const TOLD_APART: f64 = 3e-5;

    /// mamba-ssm's own (rtol, atol) of a quantity: |a − b| ≤ atol + rtol·|b| everywhere.
    pub fn mamba_ssm(quantity: &str) -> (f64, f64) {
        let (rtol, atol) = (6e-4, 2e-3);
        match quantity {
            "grad_u" => (2.0 * rtol, 2.0 * atol),
            "grad_delta_raw" => (5.0 * rtol, 10.0 * atol),
            "grad_A" => (rtol, 5.0 * atol),
            _ => (rtol, atol),
        }
    }

    /// mamba-ssm's own (rtol, atol) of a single state update.
    pub const MAMBA_SSM_UPDATE: (f64, f64) = (3e-4, 1e-3);
}
