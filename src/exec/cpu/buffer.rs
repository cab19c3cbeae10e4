//! f32 memory that begins on a cache line, and how rows lie in it.

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// f32 numbers from a 64-byte boundary on, zero at first, with a line of slack behind: a 16-lane load or store that begins
/// inside stays inside.
#[derive(Clone)]
pub struct Aligned {
    lines: Vec<Line>,
}

impl Aligned {
    /// `len` zeros and the slack.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16) + 2] }
    }

    /// The first number.
    pub fn as_ptr(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }

    /// The first number, to write.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lines.as_mut_ptr().cast()
    }

    /// All numbers, slack included.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `Line` is 16 f32 without padding, and the lines are initialised.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.lines.len() * 16) }
    }

    /// All numbers, slack included, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.lines.len() * 16) }
    }
}

/// Numbers from one row to the next: rows of samples lie side by side, wider ones begin on a cache line.
pub fn stride(width: usize) -> usize {
    if width == 1 { 1 } else { width.next_multiple_of(16) }
}

/// Hands out places in a buffer that is allocated once they are all known.
#[derive(Default)]
pub struct Layout {
    len: usize,
}

impl Layout {
    /// Room for `len` numbers from a line on, and slack behind.
    pub fn place(&mut self, len: usize) -> usize {
        let at = self.len;
        // Too much for any memory stays too much, and ends where it is allocated.
        self.len = self.len.saturating_add(len.saturating_add(31) / 16 * 16);
        at
    }

    /// The numbers placed so far.
    pub fn len(&self) -> usize {
        self.len
    }
}
