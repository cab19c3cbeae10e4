//! Programs that end with the test.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Ended when dropped: asked to, so that a server tidies up, and after a second killed.
pub struct Spawned(pub Child);

impl Spawned {
    /// Starts a program; one that cannot be started is named.
    pub fn start(command: &mut Command) -> Self {
        match command.stdin(Stdio::null()).spawn() {
            Ok(child) => Self(child),
            Err(e) => panic!("{command:?}: {e}; make servers installs it"),
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `cascabel live`, steered by lines.
pub struct Live(Child);

impl Live {
    pub fn start(arguments: &str, environment: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_cascabel"))
            .args(arguments.split(' '))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it by q: the lines that it told.
    pub fn end(mut self) -> Vec<Value> {
        let _ = self.0.stdin.take().unwrap().write_all(b"q\n");
        let mut told = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut told).unwrap();
        assert!(self.0.wait().unwrap().success());
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

pub fn number(line: &Value, path: &str) -> f64 {
    line.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {line}"))
}

/// Waits until something is there.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !there() {
        if begun.elapsed() > Duration::from_secs(15) {
            return Err(format!("no {what} in 15 s"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
