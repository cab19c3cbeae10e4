//! Who this process is, by the variables of the usual launchers.

use crate::{Error, Result};

/// One process among those of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Its number on its machine: which GPU is its own.
    pub local_rank: usize,
    /// Where the process of rank 0 listens.
    pub address: String,
    /// And at which port.
    pub port: u16,
}

/// Port of rank 0 where the launcher names none, torchrun's.
const PORT: u16 = 29_500;

/// By this torchrun says that it listens at MASTER_PORT itself, for its own store, so that rank 0 has to take another port.
pub const TAKEN_PORT: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// Each launcher's variables: rank, world, rank on the machine.
const LAUNCHERS: [[&str; 3]; 3] = [
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
    ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
];

impl Place {
    /// What torchrun, Slurm or Open MPI say (`variable` is [`std::env::var`] but in tests); `None` for a process by itself.
    ///
    /// MASTER_ADDR and MASTER_PORT are taken from any of them; without an address, all are on this machine. Under torchrun, which holds
    /// the port that it names, rank 0 listens at the one above it (below the last).
    pub fn from_launcher(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let Some([rank_name, world_name, local_name]) =
            LAUNCHERS.into_iter().find(|names| variable(names[0]).is_some() && variable(names[1]).is_some())
        else {
            return Ok(None);
        };
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            let wrong = |_| Error::input(format!("variable {name}"), "a whole number", text.as_str());
            text.trim().parse().map(Some).map_err(wrong)
        };
        let (rank, world) = (number(rank_name)?.unwrap_or(0), number(world_name)?.unwrap_or(1));
        if rank >= world {
            let expected = format!("a number below {world_name}, {world}");
            return Err(Error::input(format!("variable {rank_name}"), expected, rank.to_string()));
        }
        let port = match number("MASTER_PORT")? {
            None => PORT,
            Some(port) => u16::try_from(port)
                .map_err(|_| Error::input("variable MASTER_PORT", "a port below 65,536", port.to_string()))?,
        };
        let taken = variable(TAKEN_PORT).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let port = if taken { port.checked_add(1).unwrap_or(port - 1) } else { port };
        let address = variable("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".into());
        let local_rank = number(local_name)?.unwrap_or(rank);
        Ok((world > 1).then_some(Self { rank, world, local_rank, address, port }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(given: &[(&str, &str)]) -> Result<Option<Place>> {
        let find = |name: &str| given.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Place::from_launcher(find)
    }

    #[test]
    fn launchers_say_who_is_who() -> Result<()> {
        assert_eq!(place(&[])?, None);
        assert_eq!(place(&[("RANK", "0"), ("WORLD_SIZE", "1")])?, None);
        let torchrun = [
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node-1"),
            ("MASTER_PORT", "1234"),
        ];
        let found = Place { rank: 3, world: 4, local_rank: 1, address: "node-1".into(), port: 1234 };
        assert_eq!(place(&torchrun)?, Some(found.clone()));
        for (store, port) in [("False", 1234), ("True", 1235)] {
            let given = [torchrun.as_slice(), &[(TAKEN_PORT, store)]].concat();
            assert_eq!(place(&given)?, Some(Place { port, ..found.clone() }));
        }
        let slurm = place(&[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("SLURM_LOCALID", "0")])?;
        let found = Place { rank: 1, world: 2, local_rank: 0, address: "127.0.0.1".into(), port: PORT };
        assert_eq!(slurm, Some(found));
        let mpi = place(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")])?;
        assert_eq!(mpi.map(|p| (p.rank, p.world)), Some((0, 2)));
        for wrong in [
            [("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "1")],
            [("RANK", "x"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "1")],
            [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "70000")],
        ] {
            assert!(place(&wrong).is_err(), "{wrong:?}");
        }
        Ok(())
    }
}
