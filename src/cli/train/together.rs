//! `--devices 0,1`: this command once for each GPU, as processes that train together.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use crate::cli::exit::Tally;
use crate::{Error, Result};

/// Starts one process a device and waits for all; if one fails, the others are stopped.
pub fn run(devices: &[usize]) -> Result<Tally> {
    // Ctrl-C reaches all processes; this one waits until they have written what they have.
    let _stops = crate::cli::stop::flag()?;
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port =
        free.map_err(|e| Error::Train(format!("no free port for the processes to meet at: {e}")))?.port();
    let start = |(rank, device): (usize, &usize)| -> Result<Child> {
        let child = Command::new(&program)
            .args(of_one(std::env::args().skip(1), *device))
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", devices.len().to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
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
    wait(&mut children)
}

/// The arguments for one device: without `--devices`, with `--device cuda:N`.
fn of_one(given: impl Iterator<Item = String>, device: usize) -> Vec<String> {
    let (mut kept, mut skips) = (Vec::new(), false);
    for argument in given {
        let value = std::mem::take(&mut skips);
        skips = argument == "--devices";
        if !value && !skips && !argument.starts_with("--devices=") {
            kept.push(argument);
        }
    }
    kept.extend(["--device".into(), format!("cuda:{device}")]);
    kept
}

fn stop(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(children: &mut [Child]) -> Result<Tally> {
    loop {
        let mut running = false;
        for rank in 0..children.len() {
            let Some(child) = children.get_mut(rank) else { continue };
            match child.try_wait().map_err(|e| Error::io("wait for", format!("process {rank}"), e))? {
                None => running = true,
                Some(status) if status.success() => {}
                Some(status) => {
                    children.iter_mut().for_each(stop);
                    return Err(Error::Train(format!("the process of rank {rank} ended with {status}")));
                }
            }
        }
        if !running {
            return Ok(Tally::ONE);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_gets_its_device() {
        let of = |line: &str| of_one(line.split(' ').map(String::from), 1).join(" ");
        assert_eq!(of("train a.toml --devices 0,1 --resume"), "train a.toml --resume --device cuda:1");
        assert_eq!(of("train --devices=0,1 a.toml"), "train a.toml --device cuda:1");
    }
}
