//! Runs of neighbouring columns: read as views of rows, joined side by side, and their gradients put together.

use candle_core::{Result, Tensor};

#[cfg(feature = "train-cuda")]
use super::cuda;

/// A gradient of columns `offset ..` of a value.
pub(super) struct Part {
    pub offset: usize,
    pub grad: Tensor,
}

impl Part {
    fn end(&self) -> usize {
        self.offset + super::tensors::width(&self.grad)
    }
}

/// The same rows side by side in memory.
pub(super) fn packed(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() {
        return Ok(x.clone());
    }
    #[cfg(feature = "train-cuda")]
    if x.device().is_cuda() {
        return cuda::columns::join(&[x]);
    }
    x.contiguous()
}

/// Rows `[S, T, ·]` of several tensors, side by side.
pub(super) fn join(parts: &[&Tensor]) -> Result<Tensor> {
    match parts {
        [one] => packed(one),
        #[cfg(feature = "train-cuda")]
        [first, ..] if first.device().is_cuda() => cuda::columns::join(parts),
        _ => Tensor::cat(&parts.iter().map(|x| x.contiguous()).collect::<Result<Vec<_>>>()?, 2),
    }
}

/// The gradient of a value of `width` columns from those of runs of them; `None` from none. Columns that nobody read have 0.
pub(super) fn gather(mut parts: Vec<Part>, width: usize) -> Result<Option<Tensor>> {
    parts.sort_by_key(|part| (part.offset, part.end()));
    let mut runs: Vec<Part> = Vec::new();
    for part in parts {
        match runs.last_mut() {
            Some(last) if (last.offset, last.end()) == (part.offset, part.end()) => {
                last.grad = (packed(&last.grad)? + packed(&part.grad)?)?;
            }
            _ => runs.push(part),
        }
    }
    let Some(first) = runs.first() else { return Ok(None) };
    let side_by_side = first.offset == 0
        && runs.windows(2).all(|two| two[0].end() == two[1].offset)
        && runs.last().is_some_and(|last| last.end() == width);
    if side_by_side {
        return match runs.as_slice() {
            [whole] => Ok(Some(whole.grad.clone())),
            _ => join(&runs.iter().map(|run| &run.grad).collect::<Vec<_>>()).map(Some),
        };
    }
    let mut sum: Option<Tensor> = None;
    for run in &runs {
        let padded = packed(&run.grad)?.pad_with_zeros(2, run.offset, width - run.end())?;
        sum = Some(match sum {
            Some(sum) => (sum + padded)?,
            None => padded,
        });
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn part(offset: usize, values: &[f64]) -> Result<Part> {
        let grad = Tensor::from_slice(values, (1, 1, values.len()), &Device::Cpu)?;
        Ok(Part { offset, grad })
    }

    #[test]
    fn gradients_of_columns_add_up_wherever_they_lie() -> Result<()> {
        let of = |parts: Vec<Part>| gather(parts, 4)?.map(|g| g.flatten_all()?.to_vec1::<f64>()).transpose();
        assert_eq!(of(Vec::new())?, None);
        assert_eq!(of(vec![part(0, &[1.0, 2.0, 3.0, 4.0])?])?, Some(vec![1.0, 2.0, 3.0, 4.0]));
        let halves = vec![part(2, &[3.0, 4.0])?, part(0, &[1.0, 2.0])?, part(2, &[10.0, 10.0])?];
        assert_eq!(of(halves)?, Some(vec![1.0, 2.0, 13.0, 14.0]));
        assert_eq!(of(vec![part(1, &[5.0])?])?, Some(vec![0.0, 5.0, 0.0, 0.0]));
        let crossing = vec![part(0, &[1.0, 1.0, 1.0])?, part(1, &[2.0, 2.0, 2.0])?];
        assert_eq!(of(crossing)?, Some(vec![1.0, 3.0, 3.0, 2.0]));
        Ok(())
    }
}
