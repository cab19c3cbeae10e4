//! Collects measured errors, prints the worst of each kind, fails on all that are above their bound.

use std::collections::BTreeMap;

/// The worst error of one quantity on one executor.
struct Worst {
    error: f64,
    bound: f64,
    case: String,
}

/// The measured errors of one test.
pub struct Report {
    title: &'static str,
    worst: BTreeMap<(String, String), Worst>,
    failures: Vec<String>,
}

impl Report {
    pub fn new(title: &'static str) -> Self {
        Self { title, worst: BTreeMap::new(), failures: Vec::new() }
    }

    /// Notes an error; above the bound (or not a number) it fails the test at [`finish`](Self::finish).
    pub fn check(&mut self, case: &str, executor: &str, quantity: &str, error: f64, bound: f64) {
        let new = Worst { error, bound, case: case.into() };
        if error.is_nan() || error > bound {
            self.failures.push(format!("{case}, {quantity} on {executor}: {error:.2e}, allowed {bound:.1e}"));
        }
        let key = (quantity.to_string(), executor.to_string());
        let old = self.worst.entry(key).or_insert(Worst { error: -1.0, bound, case: String::new() });
        if error.is_nan() || error > old.error {
            *old = new;
        }
    }

    /// Prints the table; panics with every failure.
    pub fn finish(self) {
        let row = |((quantity, executor), worst): (&(String, String), &Worst)| {
            let Worst { error, bound, case } = worst;
            format!("| {quantity} | {executor} | {error:.1e} | {bound:.1e} | {case} |\n")
        };
        assert!(!self.worst.is_empty(), "{}: nothing was measured", self.title);
        let rows: String = self.worst.iter().map(row).collect();
        println!(
            "\n{}\n| quantity | executor | worst | bound | where |\n|---|---|---|---|---|\n{rows}",
            self.title
        );
        assert!(self.failures.is_empty(), "{}:\n{}", self.title, self.failures.join("\n"));
    }
}
