//! Weights laid out once, at open, in the order that the kernels read them.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::buffer::Layout;
use crate::plan::{Act, ParamId, Plan, Weights};

/// Which forms products' weights take, of those that f16 holds exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forms {
    /// f32, for an instruction set that cannot expand f16.
    #[default]
    Wide,
    /// f16, for a few rows at a time, whose time is that of reading the weights.
    Half,
    /// Each, for many rows, which would expand the same weights again and again, and for few.
    Both,
}

/// Packed weights on their way into one aligned buffer: (offset, numbers).
#[derive(Default)]
pub struct Pool {
    forms: Forms,
    layout: Layout,
    pieces: Vec<(usize, Vec<f32>)>,
}

impl Pool {
    /// An empty one.
    pub fn new(forms: Forms) -> Self {
        Self { forms, ..Self::default() }
    }

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
/// so that one pass reads the weights in a line. A GLU panel holds values, then their gates. Missing outputs are zeros. There is at least one form
/// of the weights, and their numbers are the same in either.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Inputs.
    pub d_in: usize,
    /// 16-wide vectors of weights, gates included.
    pub vectors: usize,
    /// Where the panels begin in f32.
    pub wide: Option<usize>,
    /// Where they begin in f16, two numbers in the place of one.
    pub half: Option<usize>,
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
        let halves = if pool.forms == Forms::Wide { None } else { in_halves(&packed) };
        let wide = (halves.is_none() || pool.forms == Forms::Both).then(|| pool.push(packed));
        let half = halves.map(|halves| pool.push(halves));
        Self { d_in, vectors: order.len(), wide, half, bias: pool.push(packed_bias), act }
    }
}

/// Numbers as f16, the bits of two in the place of one, if each is exact. They come in whole vectors.
fn in_halves(numbers: &[f32]) -> Option<Vec<f32>> {
    let (mut halves, mut back) = (vec![f16::ZERO; numbers.len()], vec![0.0; numbers.len()]);
    halves.convert_from_f32_slice(numbers);
    halves.convert_to_f32_slice(&mut back);
    let exact = back.iter().zip(numbers).all(|(a, b)| a.to_bits() == b.to_bits());
    let pair = |pair: &[f16]| pair.iter().rev().fold(0, |both, x| both << 16 | u32::from(x.to_bits()));
    exact.then(|| halves.chunks(2).map(|two| f32::from_bits(pair(two))).collect())
}

impl Linear {
    /// The product in parts of whole panels whose weights take at most so many bytes, or one panel, in the form that single rows read: each with the
    /// first column that it writes. A column's sum is the same in either.
    pub fn parts(self, bytes: usize) -> Vec<(usize, Self)> {
        let number = if self.half.is_some() { 2 } else { 4 };
        let panels = (bytes / (number * 4 * self.d_in * 16).max(1)).max(1);
        let part = |from: usize| {
            let vectors = (self.vectors - from).min(4 * panels);
            let column = if self.act == Act::Glu { from / 2 } else { from } * 16;
            let numbers = from * self.d_in * 16;
            let (wide, half) = (self.wide.map(|at| at + numbers), self.half.map(|at| at + numbers / 2));
            (column, Self { vectors, wide, half, bias: self.bias + from * 16, ..self })
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
    fn weights_lie_in_f16_where_each_is_exact() {
        let pack = |forms: Forms, odd: f32| {
            let weight: Vec<f32> = (0..6).map(|i| if i == 5 { odd } else { i as f32 / 8.0 }).collect();
            let mut pool = Pool::new(forms);
            let linear = Linear::pack(&mut pool, &weight, None, 3, Act::None);
            (linear.wide.is_some(), linear.half.is_some(), pool.finish().as_slice().to_vec(), linear.half)
        };
        for (forms, odd, wide, half) in [
            (Forms::Wide, -6.1e-5, true, false),
            (Forms::Half, 5.960_464_5e-8, false, true),
            (Forms::Half, 0.1, true, false),
            (Forms::Half, 65_536.0, true, false),
            (Forms::Both, 2.5, true, true),
        ] {
            let packed = pack(forms, odd);
            assert_eq!((packed.0, packed.1), (wide, half), "{forms:?} {odd}");
        }
        // Outputs 0 and 1 of input 2, side by side.
        let (_, _, numbers, half) = pack(Forms::Half, -0.0);
        let bits = numbers[half.unwrap() + 2 * 8].to_bits();
        let [low, high] = [bits as u16, (bits >> 16) as u16].map(|bits| f16::from_bits(bits).to_f32());
        assert_eq!((low, high.to_bits()), (0.25, (-0.0f32).to_bits()));
    }

    #[test]
    fn transposing_pads_rows() {
        let t = transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
        assert_eq!(t.get(..3), Some(&[1.0, 3.0, 5.0][..]));
        assert_eq!(t.get(16..19), Some(&[2.0, 4.0, 6.0][..]));
    }
}
