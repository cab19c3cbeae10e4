//! `--devices 0,1`: this command once for each GPU, as processes that train together.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cli::exit::Tally;
use crate::{Error, Result};

/// How long the others may take to end when one has failed.
const GRACE: Duration = Duration::from_secs(20);

/// Starts one process a device and waits for all; if one fails, the others are stopped.
pub fn run(devices: &[usize]) -> Result<Tally> {
    // Ctrl-C reaches all processes; this one passes on what reaches it alone, and waits until they have written what they have.
    let stops = crate::cli::stop::flag()?;
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port =
        free.map_err(|e| Error::Train(format!("no free port for the processes to meet at: {e}")))?.port();
    let start = |(rank, device): (usize, &usize)| -> Result<Child> {
        let child = Command::new(&program)
            .args(of_one(std::env::args_os().skip(1), *device))
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", devices.len().to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env_remove(crate::train::peers::TAKEN_PORT)
            .spawn();
        child.map_err(|e| Error::io("start", &program, e))
    };
    let mut children = Vec::new();
    for one in devices.iter().enumerate() {
        match start(one) {
            Ok(child) => children.push(child),
            Err(error) => {
                children.iter_mut().for_each(stop);
                return Err(error);
            }
        }
    }
    wait(&mut children, &stops)
}

/// The arguments for one device: `--device cuda:N` in place of `--devices` and its value.
fn of_one(given: impl Iterator<Item = OsString>, device: usize) -> Vec<OsString> {
    let (mut kept, mut skips) = (Vec::new(), false);
    for argument in given {
        let value = std::mem::take(&mut skips);
        let joined = argument.to_str().is_some_and(|text| text.starts_with("--devices="));
        skips = argument == "--devices";
        if skips || joined {
            kept.extend(["--device".into(), format!("cuda:{device}").into()]);
        } else if !value {
            kept.push(argument);
        }
    }
    kept
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for all. If one fails, the others are given time to find that out and end by themselves.
fn wait(children: &mut [Child], stops: &AtomicBool) -> Result<Tally> {
    let (mut failed, mut told): (Option<(usize, ExitStatus, Instant)>, bool) = (None, false);
    loop {
        if stops.load(Ordering::Relaxed) && !told {
            told = true;
            children.iter().for_each(ask_to_end);
        }
        let mut running = false;
        for (rank, child) in children.iter_mut().enumerate() {
            match child.try_wait().map_err(|e| Error::io("wait for", format!("process {rank}"), e))? {
                None => running = true,
                Some(status) if status.success() => {}
                Some(status) => failed = failed.or(Some((rank, status, Instant::now()))),
            }
        }
        match failed {
            Some((rank, status, since)) if !running || since.elapsed() > GRACE => {
                children.iter_mut().for_each(stop);
                return Err(Error::Train(format!("the process of rank {rank} ended with {status}")));
            }
            None if !running => return Ok(Tally::ONE),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// What `kill PID` does, where there is one.
fn ask_to_end(child: &Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_gets_its_device() {
        let of = |line: &str| {
            let arguments = of_one(line.split(' ').map(OsString::from), 1);
            arguments.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("train a.toml --devices 0,1 --resume"), "train a.toml --device cuda:1 --resume");
        assert_eq!(of("train --devices=0,1 -- a.toml"), "train --device cuda:1 -- a.toml");
    }
}
