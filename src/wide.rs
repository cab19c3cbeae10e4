//! Plain loops compiled once for each instruction set.

/// Runs a kernel compiled for the widest instruction set of this machine. What it calls must be `inline(always)`, itself too.
///
/// The kernel is called by reference: a closure that is called by value, but could have been called by reference, is called
/// through a function of its own, which is compiled for the narrowest.
pub(crate) fn wide<R>(kernel: impl FnMut() -> R) -> R {
    pulp::Arch::new().dispatch(Kernel(kernel))
}

struct Kernel<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Kernel<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}
