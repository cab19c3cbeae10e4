//! The instruction sets, and the one function compiled for each.

use super::kernels::{Pass, run};
#[cfg(target_arch = "x86_64")]
use super::lanes::Lanes;
use super::pack::Forms;
use super::portable::Portable;
use super::probes::Probe;
use super::program::Step;
use crate::exec::Limits;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// One 512-bit register for 16 lanes.
    Avx512,
    /// Two 256-bit registers, with fused multiply-add and conversion from f16.
    Avx2,
    /// Four 128-bit registers of an ARM processor. Written, not yet run on one.
    Neon,
    /// Plain code; the compiler uses what the target always has.
    Portable,
}

impl Isa {
    /// All, best first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The best that this CPU has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// This one, or the best if the CPU lacks it.
    pub fn available(self) -> Self {
        if self.is_available() { self } else { Self::best() }
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && Self::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Portable => true,
            #[allow(unreachable_patterns, reason = "those of other processors")]
            _ => false,
        }
    }

    /// The forms of weights in f16 that are worth their room for so many rows.
    pub(super) fn forms(self, limits: Limits) -> Forms {
        match self.most_rows() {
            0 => Forms::Wide,
            most if limits.max_rows.saturating_mul(limits.max_streams) <= most => Forms::Half,
            _ => Forms::Both,
        }
    }

    /// The most rows that take their weights in f16: one block of a product's, or none where f16 is not expanded in an instruction.
    pub(super) fn most_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => super::avx512::Avx512::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => super::avx2::Avx2::ROWS,
            _ => 0,
        }
    }

    /// Runs a probe with this instruction set, or the best if the CPU lacks it.
    pub fn probe(self, probe: &mut impl Probe) {
        // SAFETY: the set is available.
        unsafe {
            match self.available() {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => probe_avx512(probe),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => probe_avx2(probe),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => probe_neon(probe),
                _ => probe.run::<Portable>(),
            }
        }
    }

    /// Runs steps of a program with this instruction set.
    ///
    /// # Safety
    ///
    /// It is available, and the pass fits the program.
    pub unsafe fn run(self, steps: &[Step], pass: &Pass<'_>) {
        // SAFETY: the caller vouches for both.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => run_avx512(steps, pass),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => run_avx2(steps, pass),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => run_neon(steps, pass),
                _ => run::<Portable>(steps, pass),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
unsafe fn run_avx512(steps: &[Step], pass: &Pass<'_>) {
    // SAFETY: compiled for the instruction set.
    unsafe { run::<super::avx512::Avx512>(steps, pass) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(steps: &[Step], pass: &Pass<'_>) {
    // SAFETY: compiled for the instruction set.
    unsafe { run::<super::avx2::Avx2>(steps, pass) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon(steps: &[Step], pass: &Pass<'_>) {
    // SAFETY: compiled for the instruction set.
    unsafe { run::<super::neon::Neon>(steps, pass) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma,f16c")]
unsafe fn probe_avx512(probe: &mut impl Probe) {
    // SAFETY: compiled for the instruction set.
    unsafe { probe.run::<super::avx512::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn probe_avx2(probe: &mut impl Probe) {
    // SAFETY: compiled for the instruction set.
    unsafe { probe.run::<super::avx2::Avx2>() }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn probe_neon(probe: &mut impl Probe) {
    // SAFETY: compiled for the instruction set.
    unsafe { probe.run::<super::neon::Neon>() }
}
