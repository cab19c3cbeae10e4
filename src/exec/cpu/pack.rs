//! Weights laid out once, at open, in the order that the kernels read them.

use super::buffer::Layout;
use crate::plan::{Act, ParamId, Plan, Weights};

/// Packed weights on their way into one aligned buffer: (offset, numbers).
#[derive(Default)]
pub struct Pool {
    layout: Layout,
    pieces: Vec<(usize, Vec<f32>)>,
}

impl Pool {
    /// Places numbers; returns their offset.
    pub fn push(&mut self, numbers: Vec<f32>) -> usize {
        let at = self.layout.place(numbers.len());
        self.pieces.push((at, numbers));
        at
    }

    /// Everything placed, in one buffer.
    pub fn finish(self) -> super::buffer::Aligned {
        let mut buffer = super::buffer::Aligned::zeros(self.layout.len());
        for (at, numbers) in self.pieces {
            if let Some(to) = buffer.as_mut_slice().get_mut(at..at + numbers.len()) {
                to.copy_from_slice(&numbers);
            }
        }
        buffer
    }
}

/// A matrix product as panels of up to four 16-wide vectors of outputs, input-major inside a panel: `[panel][k][vector][16]`,
/// so that one pass reads the weights in a line. A GLU panel holds values, then their gates. Missing outputs are zeros.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Inputs.
    pub d_in: usize,
    /// 16-wide vectors of weights, gates included.
    pub vectors: usize,
    /// Where the panels begin.
    pub weight: usize,
    /// Where the bias begins, `[vector][16]` in the panels' order; zeros if there is none.
    pub bias: usize,
    /// The activation.
    pub act: Act,
}

impl Linear {
    /// Packs `weight` `[rows, d_in]` and `bias` `[rows]`.
    pub fn pack(pool: &mut Pool, weight: &[f32], bias: Option<&[f32]>, d_in: usize, act: Act) -> Self {
        let rows = weight.len() / d_in.max(1);
        let order = vector_order(rows, act == Act::Glu);
        let (mut packed, mut packed_bias) = (Vec::new(), Vec::new());
        for panel in order.chunks(4) {
            for k in 0..d_in {
                for first in panel {
                    packed.extend(lane_rows(*first).map(|row| {
                        row.filter(|r| *r < rows)
                            .and_then(|r| weight.get(r * d_in + k))
                            .copied()
                            .unwrap_or(0.0)
                    }));
                }
            }
        }
        for first in &order {
            packed_bias.extend(
                lane_rows(*first)
                    .map(|row| bias.zip(row).and_then(|(b, r)| b.get(r)).copied().unwrap_or(0.0)),
            );
        }
        Self { d_in, vectors: order.len(), weight: pool.push(packed), bias: pool.push(packed_bias), act }
    }
}

impl Linear {
    /// The product in parts of whole panels whose weights take at most so many bytes, or one panel: each with the first column that it
    /// writes. A column's sum is the same in either.
    pub fn parts(self, bytes: usize) -> Vec<(usize, Self)> {
        let panel = 4 * self.d_in * 16;
        let panels = (bytes / (4 * panel).max(1)).max(1);
        let part = |from: usize| {
            let vectors = (self.vectors - from).min(4 * panels);
            let column = if self.act == Act::Glu { from / 2 } else { from } * 16;
            let (weight, bias) = (self.weight + from * self.d_in * 16, self.bias + from * 16);
            (column, Self { vectors, weight, bias, ..self })
        };
        (0..self.vectors).step_by(4 * panels).map(part).collect()
    }
}

/// Sixteen weight rows of a vector, as (first row, rows that exist from it on).
type FirstRow = (usize, usize);

fn lane_rows((first, count): FirstRow) -> impl Iterator<Item = Option<usize>> {
    (0..16).map(move |lane| (lane < count).then_some(first + lane))
}

/// Which weight rows each vector holds. With GLU, vectors of values alternate with vectors of gates by twos.
fn vector_order(rows: usize, glu: bool) -> Vec<FirstRow> {
    let vectors = |from: usize, to: usize| (from..to).step_by(16).map(move |at| (at, (to - at).min(16)));
    if !glu {
        return vectors(0, rows).collect();
    }
    let (values, gates): (Vec<_>, Vec<_>) =
        (vectors(0, rows / 2).collect(), vectors(rows / 2, rows).collect());
    values.chunks(2).zip(gates.chunks(2)).flat_map(|(v, g)| v.iter().chain(g).copied()).collect()
}

/// `[d, n]` as `[n]` rows of d numbers, each row padded to whole vectors.
pub fn transposed(x: &[f32], d: usize, n: usize) -> Vec<f32> {
    let wide = d.next_multiple_of(16);
    let mut out = vec![0.0; n * wide];
    for (i, value) in x.iter().take(d * n).enumerate() {
        if let Some(to) = out.get_mut((i % n) * wide + i / n) {
            *to = *value;
        }
    }
    out
}

/// `[rows, d]` with each row padded to whole vectors.
pub fn padded(x: &[f32], d: usize) -> Vec<f32> {
    let wide = d.next_multiple_of(16);
    x.chunks(d.max(1))
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, wide - row.len())))
        .collect()
}

/// A vector parameter, padded; zeros where there is none.
pub fn vector(pool: &mut Pool, weights: &Weights, id: Option<ParamId>, d: usize) -> usize {
    let numbers = id.map_or_else(|| vec![0.0; d], |id| weights.get(id).to_vec());
    pool.push(padded(&numbers, d))
}

/// Packs a linear op's parameters.
pub fn linear(
    pool: &mut Pool,
    plan: &Plan,
    weights: &Weights,
    ids: (ParamId, Option<ParamId>),
    act: Act,
) -> Linear {
    let d_in = plan.param(ids.0).shape.last().copied().unwrap_or(1);
    Linear::pack(pool, weights.get(ids.0), ids.1.map(|b| weights.get(b)), d_in, act)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glu_vectors_pair_values_with_gates() {
        assert_eq!(vector_order(2 * 40, true), [(0, 16), (16, 16), (40, 16), (56, 16), (32, 8), (72, 8)]);
        assert_eq!(vector_order(20, false), [(0, 16), (16, 4)]);
    }

    #[test]
    fn transposing_pads_rows() {
        let t = transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
        assert_eq!(t.get(..3), Some(&[1.0, 3.0, 5.0][..]));
        assert_eq!(t.get(16..19), Some(&[2.0, 4.0, 6.0][..]));
    }
}
