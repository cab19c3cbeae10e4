//! Denormal numbers count as zero while the kernels run: set on entry, put back on exit, on the audio thread and off it alike.

/// While it lives, this thread treats denormal numbers as zero (x86: FTZ and DAZ). Elsewhere nothing changes: states are still flushed, by
/// comparison, but what a scan adds up on the way may keep values below 2⁻¹⁰⁰ that x86 drops.
pub struct FlushDenormals {
    #[cfg(target_arch = "x86_64")]
    before: u32,
}

#[cfg(target_arch = "x86_64")]
impl FlushDenormals {
    /// Turns the mode on.
    pub fn on() -> Self {
        let before = control();
        // Bit 15 flushes results to zero, bit 6 reads denormal operands as zero.
        set_control(before | 1 << 15 | 1 << 6);
        Self { before }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for FlushDenormals {
    fn drop(&mut self) {
        set_control(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
fn control() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores the SSE control register (always there on x86-64) to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "x86_64")]
fn set_control(value: u32) {
    // SAFETY: loads a value that differs from a valid one in FTZ and DAZ at most.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

#[cfg(not(target_arch = "x86_64"))]
impl FlushDenormals {
    /// Nothing to turn on.
    pub fn on() -> Self {
        Self {}
    }
}
