//! The gradient of an embedding's table: `kernels/embed.cu`. (Candle's own sums all rows on one thread a column.)

use candle_core::{DType, Result, Tensor};

use super::call::{Kernels, Launch, kernels, launch_on, room, tensor, with_all};
use super::linear::sum;

const KERNELS: Kernels = kernels!("embed");

/// Tokens of a block.
const TOKENS: usize = 256;

/// `[V, d]` of tokens `[rows]` (u32), `g [rows, d]`.
pub fn embed_back(table: &Tensor, tokens: &Tensor, g: &Tensor) -> Result<Tensor> {
    let ((vocabulary, d), rows) = (table.dims2()?, g.dim(0)?);
    // Whole numbers that floats hold, as kernels take those, and blocks that a grid holds.
    if vocabulary > 65_535 * TOKENS {
        candle_core::bail!("embed: expected at most {} tokens, got {vocabulary}", 65_535 * TOKENS);
    }
    let tokens = tokens.to_dtype(DType::F32)?;
    with_all([g, &tokens], |device, [g, tokens]| {
        let columns = d.div_ceil(32);
        let blocks = vocabulary.div_ceil(TOKENS);
        // So many as fill a chip, if each has a few hundred rows to sum.
        let shares = (512 / (columns * blocks)).min(rows / 256).max(1);
        let mut part = room(device, shares * vocabulary * d)?;
        let grid = Launch { grid: [columns, shares, blocks], block: [32, 8], shared: 0 };
        let results = &mut [&mut part.slice_mut(..)];
        launch_on(device, (&KERNELS, "embed_back"), grid, &[&g, &tokens], results, &[rows, d, vocabulary])?;
        let all = if shares == 1 { part } else { sum(device, &part.slice(..), vocabulary * d)? };
        Ok(tensor(all, device, (vocabulary, d)))
    })
}
