//! Rows of a table that tokens choose, `y_t = E[⌊token_t/u⌋ mod V]`, and the way back: `Ē[v] = Σ ȳ_t` over the rows with token v.

use candle_core::{Result, Tensor};

use super::columns::packed;
#[cfg(feature = "train-cuda")]
use super::cuda;

/// Which row of the table each token, below `all`, chooses: ⌊token/unit⌋ mod V. A token beyond them is one beyond a table: refused there.
pub(super) fn chosen(tokens: &Tensor, all: usize, unit: usize, table: &Tensor) -> Result<Tensor> {
    let number = |n: usize| Tensor::new(n as u32, tokens.device());
    let digits = if unit == 1 { tokens.clone() } else { tokens.broadcast_div(&number(unit)?)? };
    // The last thing that a token says has nothing above it.
    if unit * table.dim(0)? == all {
        return Ok(digits);
    }
    let rows = number(table.dim(0)?)?;
    digits.sub(&digits.broadcast_div(&rows)?.broadcast_mul(&rows)?)
}

/// `[.., d]` for tokens `[..]` (u32), `table [V, d]`.
pub(super) fn embed(table: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let y = table.index_select(&tokens.contiguous()?.flatten_all()?, 0)?;
    y.reshape(tokens.dims().iter().copied().chain([table.dim(1)?]).collect::<Vec<_>>())
}

/// Ē of [`embed`].
pub(super) fn embed_back(table: &Tensor, tokens: &Tensor, g: &Tensor) -> Result<Tensor> {
    let tokens = tokens.contiguous()?.flatten_all()?;
    let g = packed(g)?.reshape(((), table.dim(1)?))?;
    #[cfg(feature = "train-cuda")]
    if g.device().is_cuda() {
        return cuda::embed::embed_back(table, &tokens, &g);
    }
    table.zeros_like()?.index_add(&tokens, &g, 0)
}
