//! Processes that train one model together, each on its share of every step's examples: data-parallel.
//!
//! All hold the same weights and optimiser. A step's examples are cut evenly, in the order of ranks; each process takes the gradient
//! summed over its own, [`Peers::sum`] adds them up, and each makes the same step from the sum. The process of rank 0 alone
//! validates and writes. Sums run over halves of halves ([`halves`]), inside a process and among them, so that on the CPU two,
//! four or eight processes give the bits that one gives; other numbers of them, and GPUs, whose process makes one graph of its
//! share, only round otherwise.
//!
//! GPUs add up by NCCL where each process finds it, else over TCP through the host, as CPUs do.
//!
//! A checkpoint holds the streams' ends of all processes, so that a run of several that was cut goes on with the bits of one that was not.
//!
//! The usual launchers say who is who: see [`Place::from_launcher`].

#[cfg(feature = "train-cuda")]
mod nccl;
mod place;
mod tcp;

#[cfg(feature = "train-cuda")]
pub use nccl::Nccl;
pub use place::{Place, TAKEN_PORT};
pub use tcp::Tcp;

use candle_core::Tensor;

use crate::Result;
use crate::exec::candle::train_error;

/// The processes of a run, seen from one of them.
pub trait Peers: Send {
    /// This one's number.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// What sums go over.
    fn way(&self) -> &'static str;

    /// Replaces numbers by their sum over all processes, which all call this with equally many. An error when one has left.
    fn sum(&mut self, numbers: &mut [f32]) -> Result<()>;

    /// The same of numbers in a row where the model learns.
    fn sum_tensor(&mut self, numbers: Tensor) -> Result<Tensor> {
        let mut here = numbers.to_vec1::<f32>().map_err(train_error)?;
        self.sum(&mut here)?;
        Tensor::from_vec(here, numbers.shape(), numbers.device()).map_err(train_error)
    }
}

/// The sum of vectors of one length: that of the first half's sum and of the second half's, and so on down.
pub fn halves(mut parts: Vec<Vec<f32>>) -> Vec<f32> {
    if parts.len() < 2 {
        return parts.pop().unwrap_or_default();
    }
    let second = parts.split_off(parts.len() / 2);
    let (mut sum, second) = (halves(parts), halves(second));
    sum.iter_mut().zip(&second).for_each(|(a, b)| *a += b);
    sum
}

/// A process by itself.
pub struct Alone;

impl Peers for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn way(&self) -> &'static str {
        "nothing"
    }

    fn sum(&mut self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn sum_tensor(&mut self, numbers: Tensor) -> Result<Tensor> {
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::halves;

    #[test]
    fn halves_of_halves_add_all_and_do_not_depend_on_who_adds() {
        let parts: Vec<Vec<f32>> = (0..12).map(|i| vec![0.1 + i as f32, (i as f32).sin()]).collect();
        let whole = halves(parts.clone());
        assert!((whole[0] - 67.2).abs() < 1e-5);
        for world in [2, 4] {
            let shares = parts.chunks(12 / world).map(|share| halves(share.to_vec())).collect();
            assert_eq!(halves(shares), whole, "{world}");
        }
        assert!(halves(Vec::new()).is_empty());
    }
}
