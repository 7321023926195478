//! Known bugs, put back one at a time: each must be caught within a stated number of seeds.
//!
//! Needs a build with `--cfg raftmq_mutants` (`make sim-mutants`), which holds all of them.

mod command;
mod hunt;
mod targets;

pub use command::Command;

use host::Mutant;

use crate::report::Failure;

/// The known bug of this name.
///
/// # Errors
/// There is none; the error names those that there are.
pub(crate) fn named(name: &str) -> Result<Mutant, Failure> {
    let all = Mutant::ALL.iter();
    let found = all.clone().find(|mutant| mutant.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = all.map(|mutant| mutant.name()).collect();
        Failure::NoSuchMutant(names.join(", "))
    })
}

/// From now on all worlds of this process have this bug and no other.
///
/// # Errors
/// The build holds no known bugs.
pub(crate) fn select(mutant: Option<Mutant>) -> Result<(), Failure> {
    #[cfg(raftmq_mutants)]
    host::mutant::select(mutant);
    match mutant.is_none_or(host::mutant::is) {
        true => Ok(()),
        false => Err(Failure::NoMutants),
    }
}
