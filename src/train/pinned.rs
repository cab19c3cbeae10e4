//! Numbers of the host in memory that stays where it is, so that a GPU copies them while the host goes on.

use std::ops::Deref;

use candle_core::Device;

/// A vector that never grows beyond its room, pinned for the device that it is for.
///
/// From memory that is not pinned the driver copies piece by piece through its own, once all work before is done, and the host
/// waits for it. On the CPU it is a vector.
#[derive(Debug)]
pub struct PinnedVec<X> {
    /// Let go of before the numbers are.
    #[cfg(feature = "train-cuda")]
    _pin: Option<pin::Pin>,
    numbers: Vec<X>,
}

impl<X: Copy> PinnedVec<X> {
    /// An empty one with room for `count` numbers.
    pub fn with_capacity(count: usize, device: &Device) -> Self {
        let numbers = Vec::<X>::with_capacity(count);
        let _ = device;
        Self {
            #[cfg(feature = "train-cuda")]
            _pin: pin::Pin::new(&numbers, device),
            numbers,
        }
    }

    /// Adds numbers; those that there is no room for are left out.
    pub fn extend(&mut self, more: &[X]) {
        let room = self.numbers.capacity() - self.numbers.len();
        self.numbers.extend_from_slice(&more[..more.len().min(room)]);
    }

    /// Forgets the numbers and keeps the room.
    pub fn clear(&mut self) {
        self.numbers.clear();
    }
}

impl<X> Deref for PinnedVec<X> {
    type Target = [X];

    fn deref(&self) -> &[X] {
        &self.numbers
    }
}

#[cfg(feature = "train-cuda")]
mod pin {
    use std::ffi::c_void;
    use std::sync::Arc;

    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};

    /// Memory that the driver knows of.
    #[derive(Debug)]
    pub struct Pin {
        context: Arc<CudaContext>,
        at: *mut c_void,
    }

    // SAFETY: `at` is the driver's name for the memory and never read through.
    #[allow(unsafe_code)]
    unsafe impl Send for Pin {}

    impl Pin {
        /// Pins a vector's room. The vector must keep it until this is dropped; nothing on the CPU, or if the driver won't.
        pub fn new<X>(numbers: &Vec<X>, device: &Device) -> Option<Self> {
            let context = Arc::clone(device.as_cuda_device().ok()?.cuda_stream().context());
            context.bind_to_thread().ok()?;
            let (at, bytes) = (numbers.as_ptr().cast_mut().cast(), numbers.capacity() * size_of::<X>());
            // SAFETY: these bytes are the vector's.
            #[allow(unsafe_code)]
            let done = unsafe { sys::cuMemHostRegister_v2(at, bytes, 0) };
            (done == sys::CUresult::CUDA_SUCCESS).then_some(Self { context, at })
        }
    }

    impl Drop for Pin {
        fn drop(&mut self) {
            let _ = self.context.bind_to_thread();
            // SAFETY: pinned in `new`, once.
            #[allow(unsafe_code)]
            let _ = unsafe { sys::cuMemHostUnregister(self.at) };
        }
    }
}
