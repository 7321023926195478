//! Known bugs, put back one at a time: each must be caught within a stated number of seeds.
//!
//! The bugs themselves are patches, `sim/mutants/NAME.patch`, each behind its switch. `make sim-mutants` builds a copy of the
//! sources to which all of them are applied; no other build holds one.

mod command;
mod hunt;
mod targets;

pub use command::Command;

use crate::failure::Failure;
use targets::Target;

/// What puts a bug back, by its name. There is none here: `sim/mutants/switch.patch` brings it.
const SWITCH: Option<fn(&'static str)> = None;

/// The known bug of this name.
///
/// # Errors
/// There is none; the error names those that there are.
pub(crate) fn named(name: &str) -> Result<&'static Target, Failure> {
    let found = targets::ALL.iter().find(|target| target.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        Failure::NoSuchMutant(names.join(", "))
    })
}

/// What puts a bug back.
///
/// # Errors
/// The build holds no known bugs.
fn switch() -> Result<fn(&'static str), Failure> {
    SWITCH.ok_or(Failure::NoMutants)
}

/// From now on all worlds of this process have this bug and no other.
///
/// # Errors
/// The build holds no known bugs.
pub(crate) fn select(name: &'static str) -> Result<(), Failure> {
    switch()?(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{read_dir, read_to_string};
    use std::path::Path;

    use super::*;

    fn here() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// Catches a bug without a patch, a patch that nobody hunts, and a switch that nobody turns.
    #[test]
    fn each_known_bug_is_a_patch_behind_its_own_switch() {
        let known: BTreeSet<String> = targets::ALL
            .iter()
            .map(|target| target.name.to_owned())
            .collect();
        assert_eq!(known.len(), targets::ALL.len(), "a name stands twice");
        let mut patches = BTreeSet::new();
        for entry in read_dir(here().join("mutants")).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            if path
                .extension()
                .is_none_or(|extension| extension != "patch")
                || name == "switch"
            {
                continue;
            }
            let text = read_to_string(&path).expect("a patch is UTF-8");
            let added = text.lines().filter(|line| line.starts_with('+'));
            let asked: BTreeSet<&str> = added
                .flat_map(|line| line.split("mutant::is(\"").skip(1))
                .filter_map(|rest| rest.split('"').next())
                .collect();
            assert_eq!(asked, BTreeSet::from([&*name]), "{}", path.display());
            patches.insert(name.into_owned());
        }
        assert_eq!(patches, known);
    }

    /// Catches a table that promises something else than what is hunted.
    #[test]
    fn the_page_on_testing_promises_what_is_hunted() {
        let page = read_to_string(here().join("../docs/testing.md")).expect("a page");
        let (_, rest) = page.split_once("<!-- mutants: begin -->").expect("a table");
        let (table, _) = rest
            .split_once("<!-- mutants: end -->")
            .expect("a table ends");
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let mut told = BTreeSet::new();
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, scenarios, caught_as, _, worlds] = cells[..] else {
                panic!("not five cells: {row}");
            };
            let name = name.trim_end_matches(" *");
            let target = named(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenarios, target.scenarios.join(", "), "{name}");
            assert_eq!(worlds, target.worlds.to_string(), "{name}");
            for invariant in caught_as.split(", ").map(|name| name.trim_matches('`')) {
                assert!(
                    target.invariants.contains(&invariant),
                    "{name}: {invariant}"
                );
            }
            told.insert(name);
        }
        assert_eq!(told.len(), targets::ALL.len());
    }
}
