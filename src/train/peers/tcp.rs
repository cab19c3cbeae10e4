//! Peers over TCP: the process of rank 0 adds up and sends the sum back.
//!
//! For tests, for CPUs, and for GPUs without NCCL. Each message is its count of
//! numbers (u64) and the numbers (f32), little-endian. A connection begins with rank, world and a fingerprint of what is trained,
//! so that processes of another run are refused.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Peers, Place, halves};
use crate::{Error, Result};

/// How long processes wait for each other at the start: each has loaded all data before.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long one waits in a step: rank 0 validates now and then.
const SILENCE: Duration = Duration::from_secs(1800);

/// See the module's page.
pub struct Tcp {
    rank: usize,
    world: usize,
    /// Of rank 0: to ranks 1, 2, …; of the others: to rank 0.
    links: Vec<TcpStream>,
    bytes: Vec<u8>,
}

/// What a process says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    rank: u64,
    world: u64,
    fingerprint: [u8; 32],
}

impl Hello {
    fn send(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&[&self.rank.to_le_bytes()[..], &self.world.to_le_bytes(), &self.fingerprint].concat())
    }

    fn receive(from: &mut impl Read) -> io::Result<Self> {
        let (mut rank, mut world, mut fingerprint) = ([0; 8], [0; 8], [0; 32]);
        from.read_exact(&mut rank)?;
        from.read_exact(&mut world)?;
        from.read_exact(&mut fingerprint)?;
        Ok(Self { rank: u64::from_le_bytes(rank), world: u64::from_le_bytes(world), fingerprint })
    }
}

impl Tcp {
    /// Finds the other processes, all of which must have the same fingerprint.
    pub fn connect(place: &Place, fingerprint: [u8; 32]) -> Result<Self> {
        let hello = Hello { rank: place.rank as u64, world: place.world as u64, fingerprint };
        let links = if place.rank == 0 { listen(place, hello)? } else { vec![call(place, hello)?] };
        Ok(Self { rank: place.rank, world: place.world, links, bytes: Vec::new() })
    }
}

fn at(place: &Place) -> String {
    format!("{}:{}", place.address, place.port)
}

fn link(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))
}

/// Waits for all other ranks.
fn listen(place: &Place, own: Hello) -> Result<Vec<TcpStream>> {
    let failed = |e: io::Error| Error::Train(format!("rank 0 cannot listen at {}: {e}", at(place)));
    // MASTER_ADDR is where others find this machine; here its name may mean the loopback alone.
    let local = place.address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let address = if local { place.address.as_str() } else { "0.0.0.0" };
    let listener = TcpListener::bind((address, place.port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let mut links: Vec<Option<TcpStream>> = (1..place.world).map(|_| None).collect();
    let begun = Instant::now();
    while let Some(missing) = links.iter().position(Option::is_none) {
        if begun.elapsed() > PATIENCE {
            let (world, seconds) = (place.world, PATIENCE.as_secs());
            let expected = format!("{world} processes, as the launcher's variables say, within {seconds} s");
            return Err(Error::input("training together", expected, format!("none of rank {}", missing + 1)));
        }
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            Err(e) => return Err(failed(e)),
        };
        let greeted = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(10))))
            .and_then(|()| Hello::receive(&mut stream));
        // Whoever says nothing that makes sense is not of this run.
        let Ok(hello) = greeted else { continue };
        own.send(&mut stream).map_err(failed)?;
        agree(own, hello)?;
        link(&stream).map_err(failed)?;
        match links.get_mut((hello.rank as usize).wrapping_sub(1)) {
            Some(free @ None) => *free = Some(stream),
            _ => {
                let got = format!("rank {} twice or out of range", hello.rank);
                return Err(Error::input(
                    "training together",
                    format!("ranks 0 to {}", place.world - 1),
                    got,
                ));
            }
        }
    }
    Ok(links.into_iter().flatten().collect())
}

/// Calls rank 0 until it answers.
fn call(place: &Place, own: Hello) -> Result<TcpStream> {
    let begun = Instant::now();
    let failed = |e: io::Error| {
        let there = at(place);
        Error::Train(format!(
            "rank {} cannot reach rank 0 at {there} (MASTER_ADDR, MASTER_PORT): {e}",
            place.rank
        ))
    };
    let mut stream = loop {
        match TcpStream::connect((place.address.as_str(), place.port)) {
            // A call to a port of this machine on which nobody listens yet may come out at itself.
            Ok(stream) if stream.local_addr().ok() != stream.peer_addr().ok() => break stream,
            Ok(_) => std::thread::sleep(Duration::from_millis(50)),
            Err(e) if begun.elapsed() > PATIENCE => return Err(failed(e)),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    link(&stream).map_err(failed)?;
    own.send(&mut stream).map_err(failed)?;
    let other = Hello::receive(&mut stream).map_err(failed)?;
    agree(own, other)?;
    if other.rank != 0 {
        let expected = format!("rank 0 at {}", at(place));
        return Err(Error::input("training together", expected, format!("rank {}", other.rank)));
    }
    Ok(stream)
}

fn agree(own: Hello, other: Hello) -> Result<()> {
    if (own.world, own.fingerprint) == (other.world, other.fingerprint) {
        return Ok(());
    }
    let expected = format!("the same recipe, data and progress in all {} processes", own.world);
    Err(Error::input("training together", expected, format!("another at rank {}", other.rank)))
}

impl Peers for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn way(&self) -> &'static str {
        "TCP"
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<()> {
        let (rank, bytes) = (self.rank, &mut self.bytes);
        let left = |other: usize| {
            move |e: io::Error| match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Train(format!(
                    "the process of rank {other} said nothing for {} s",
                    SILENCE.as_secs()
                )),
                _ => Error::Train(format!("the process of rank {other} has left (rank {rank}: {e})")),
            }
        };
        if rank != 0 {
            for link in &mut self.links {
                send(link, numbers, bytes).map_err(left(0))?;
                receive(link, numbers, bytes).map_err(left(0))?;
            }
            return Ok(());
        }
        let mut parts = vec![numbers.to_vec(); self.world];
        for (i, (link, part)) in self.links.iter_mut().zip(parts.iter_mut().skip(1)).enumerate() {
            receive(link, part, bytes).map_err(left(i + 1))?;
        }
        numbers.copy_from_slice(&halves(parts));
        for (i, link) in self.links.iter_mut().enumerate() {
            send(link, numbers, bytes).map_err(left(i + 1))?;
        }
        Ok(())
    }
}

fn send(link: &mut TcpStream, numbers: &[f32], bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    bytes.extend((numbers.len() as u64).to_le_bytes());
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    link.write_all(bytes)
}

fn receive(link: &mut TcpStream, numbers: &mut [f32], bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut count = [0; 8];
    link.read_exact(&mut count)?;
    if u64::from_le_bytes(count) != numbers.len() as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it sent another count of numbers"));
    }
    bytes.resize(4 * numbers.len(), 0);
    link.read_exact(bytes)?;
    for (to, from) in numbers.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *to = f32::from_le_bytes(*from);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that was free a moment ago.
    fn place(rank: usize, world: usize, port: u16) -> Place {
        Place { rank, world, local_rank: rank, address: "127.0.0.1".into(), port }
    }

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(PORT, |a| a.port())
    }
    const PORT: u16 = 29_511;

    #[test]
    fn three_processes_add_up() {
        let port = free_port();
        let sums = std::thread::scope(|scope| {
            let process = |rank: usize| {
                scope.spawn(move || -> Result<Vec<f32>> {
                    let mut peers = Tcp::connect(&place(rank, 3, port), [7; 32])?;
                    let mut numbers = vec![rank as f32, 10.0 * rank as f32, 1e-3];
                    peers.sum(&mut numbers)?;
                    peers.sum(&mut numbers)?;
                    Ok(numbers)
                })
            };
            [2, 0, 1].map(process).map(|thread| thread.join())
        });
        for sum in sums {
            let sum = sum.expect("a thread panicked").expect("a process failed");
            assert_eq!(sum[..2], [9.0, 90.0]);
            assert!((sum[2] - 9e-3).abs() < 1e-8);
        }
    }

    #[test]
    fn another_run_is_refused_and_who_leaves_is_named() {
        let port = free_port();
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| Tcp::connect(&place(0, 2, port), [1; 32]).map(|_| ()));
            let second = scope.spawn(|| Tcp::connect(&place(1, 2, port), [2; 32]).map(|_| ()));
            (first.join().expect("panicked"), second.join().expect("panicked"))
        });
        for refused in [first, second] {
            let text = refused.expect_err("two runs").to_string();
            assert!(text.contains("the same recipe"), "{text}");
        }
        let port = free_port();
        let left = std::thread::scope(|scope| {
            let stays = scope.spawn(|| Tcp::connect(&place(0, 2, port), [1; 32])?.sum(&mut [1.0]));
            let leaves = scope.spawn(|| Tcp::connect(&place(1, 2, port), [1; 32]).map(|_| ()));
            leaves.join().expect("panicked").expect("could not connect");
            stays.join().expect("panicked")
        });
        let text = left.expect_err("a process left").to_string();
        assert!(text.contains("rank 1 has left"), "{text}");
    }
}
