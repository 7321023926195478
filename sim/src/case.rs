//! A world that is written down: what clients do in it and what goes wrong, as data, in a file.
//!
//! `make sim-minimize` makes one of a seed that fails; `make sim` replays all of them for ever.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::scenario::Scenario;
use crate::spec::{Course, Spec};

/// A world in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What went wrong in it, in a line.
    pub about: String,
    /// The scenario, which together with the seed decides how brokers are configured.
    pub scenario: String,
    /// The seed, which decides all that is drawn on the way.
    pub seed: u64,
    /// The invariant that it violated once, or violates with a known bug.
    pub invariant: String,
    /// What happens.
    #[serde(flatten)]
    pub course: Course,
}

#[expect(
    clippy::disallowed_methods,
    reason = "files of the project, outside of every simulation"
)]
impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// The file cannot be read, or is no case.
    pub fn read(path: &Path) -> Result<Case, Failure> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text).map_err(|error| Failure::NoCase {
            path: path.to_owned(),
            error: error.to_string(),
        })
    }

    /// Writes it into a folder, under a name of its own. Returns the path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, Failure> {
        std::fs::create_dir_all(folder)?;
        let name = format!("{}-{}-{}.json", self.scenario, self.seed, self.invariant);
        let path = folder.join(name);
        let mut text = serde_json::to_string_pretty(self).expect("a case is plain data");
        text.push('\n');
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// All cases of a folder, by name; none if it is not there.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn all(folder: &Path) -> Result<Vec<(PathBuf, Case)>, Failure> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| suffix == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let read = |path: PathBuf| Case::read(&path).map(|case| (path, case));
        paths.into_iter().map(read).collect()
    }
}

impl Case {
    /// A world that will be run now, and not be kept.
    pub fn of(spec: &Spec) -> Case {
        Case {
            about: String::new(),
            scenario: spec.scenario.name.to_owned(),
            seed: spec.seed,
            invariant: String::new(),
            course: spec.course(),
        }
    }

    /// The world to run.
    ///
    /// # Errors
    /// Its scenario does not exist.
    pub fn spec(&self) -> Result<Spec, Failure> {
        let mut spec = Spec::new(Scenario::find(&self.scenario)?, self.seed);
        spec.course = Some(self.course.clone());
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    /// Would catch a fault, or a habit of a client, that cannot be written down and read again.
    #[test]
    fn what_any_seed_says_survives_its_file() {
        for (scenario, seed) in SCENARIOS
            .iter()
            .flat_map(|scenario| (1..=20).map(move |seed| (scenario, seed)))
        {
            let case = Case {
                about: "made for this test".to_owned(),
                scenario: scenario.name.to_owned(),
                seed,
                invariant: "none".to_owned(),
                course: Spec::new(scenario, seed).course(),
            };
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
        }
    }
}
