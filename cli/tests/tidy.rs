//! The rules of the code that no lint knows: who may import whom, what may stand where, which files may
//! name each other, how long a file may be. Reads the manifests and the sources of the whole workspace.

#[path = "tidy/circles.rs"]
mod circles;

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests, and with them.
const CODE_LINES_MAX: usize = 600;
const FILE_LINES_MAX: usize = 1000;

/// Each folder and the folders of ours that it may import. A new edge is a decision record.
const IMPORTS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &["model"]),
    ("host", &[]),
    ("store", &["proto", "host"]),
    ("raft", &["store", "proto", "host"]),
    ("gateway", &["proto", "host"]),
    (
        "broker",
        &["raft", "store", "gateway", "proto", "model", "host"],
    ),
    ("nameserver", &["gateway", "proto", "model", "host"]),
    ("client", &["proto", "model", "host"]),
    (
        "cli",
        &[
            "client",
            "nameserver",
            "broker",
            "gateway",
            "raft",
            "store",
            "proto",
            "model",
            "host",
        ],
    ),
    (
        "sim",
        &[
            "client",
            "nameserver",
            "broker",
            "gateway",
            "raft",
            "store",
            "proto",
            "model",
            "host",
        ],
    ),
];

/// Crates that only one folder may name.
const ONLY: &[(&str, &[&str])] = &[("openraft", &["raft"]), ("rocksdb", &["store"])];

/// Text that may stand in the sources of these places only.
const TEXT_ONLY_IN: &[(&str, &[&str])] = &[
    (
        "cfg(madsim)",
        &[
            "host/",
            "proto/src/",
            "store/src/kv",
            "store/src/lib.rs",
            "raft/src/runtime",
            "sim/",
        ],
    ),
    (
        "cfg(not(madsim))",
        &[
            "host/",
            "proto/src/",
            "store/src/kv",
            "store/src/lib.rs",
            "raft/src/runtime",
            "sim/",
        ],
    ),
    (
        "std::fs",
        &[
            "host/",
            "cli/src/files.rs",
            "proto/build.rs",
            "cli/src/ceiling/",
            "store/src/kv/rocks",
            "sim/src/report.rs",
            "sim/src/case.rs",
            "client/examples/tls.rs",
        ],
    ),
    ("SystemTime::now", &["host/"]),
    ("std::thread::spawn", &["host/", "cli/src/ceiling/", "sim/"]),
    ("openraft::", &["raft/", "sim/"]),
    ("rocksdb::", &["store/src/kv/rocks"]),
    (
        "TcpListener::bind",
        &[
            "host/",
            "cli/src/ceiling/",
            "cli/src/process/ports.rs",
            "cli/src/command/dev/ports.rs",
        ],
    ),
];

/// Text that may stand nowhere outside tests.
const NOWHERE: &[&str] = &[
    "todo!(",
    "unimplemented!(",
    "dbg!(",
    "allow(dead_code)",
    "#[ignore",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("cli stands in the workspace")
        .to_owned()
}

struct Folder {
    name: String,
    manifest: toml::Table,
}

impl Folder {
    /// Names of the crates in a section, as they are published, not as they are renamed.
    fn dependencies(&self, section: &str, workspace: &toml::Table) -> BTreeSet<String> {
        let table = self.manifest.get(section).and_then(toml::Value::as_table);
        let declared = workspace["workspace"]["dependencies"]
            .as_table()
            .expect("a table");
        let name = |key: &String| match declared.get(key).and_then(|value| value.get("package")) {
            Some(package) => package.as_str().expect("a name").to_owned(),
            None => key.clone(),
        };
        table
            .map(|table| table.keys().map(name).collect())
            .unwrap_or_default()
    }
}

fn manifest(path: &Path) -> toml::Table {
    let text = read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folders(workspace: &toml::Table) -> Vec<Folder> {
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("members is a list");
    let names = members
        .iter()
        .map(|member| member.as_str().expect("a folder").to_owned());
    names
        .map(|name| Folder {
            manifest: manifest(&top().join(&name).join("Cargo.toml")),
            name,
        })
        .collect()
}

/// Folder of the package, for our own packages.
fn folder_of(package: &str) -> Option<&str> {
    IMPORTS.iter().map(|(folder, _)| *folder).find(|folder| {
        package == format!("raftmq-{folder}") || (*folder == "cli" && package == "raftmq")
    })
}

/// Catches a new edge between our crates, and openraft or rocksdb outside the one crate that may name it.
#[test]
fn crates_import_only_what_they_may() {
    let workspace = manifest(&top().join("Cargo.toml"));
    let mut wrong = Vec::new();
    for folder in folders(&workspace) {
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(name, _)| *name == folder.name)
            .unwrap_or_else(|| {
                panic!(
                    "{} is not among the folders that tidy.rs knows",
                    folder.name
                )
            });
        for package in folder.dependencies("dependencies", &workspace) {
            if folder_of(&package).is_some_and(|imported| !allowed.contains(&imported)) {
                wrong.push(format!("{} may not import {package}", folder.name));
            }
        }
        for (package, only) in ONLY {
            let named = ["dependencies", "dev-dependencies", "build-dependencies"]
                .iter()
                .any(|section| folder.dependencies(section, &workspace).contains(*package));
            if named && !only.contains(&folder.name.as_str()) && folder.name != "sim" {
                wrong.push(format!("{} may not name {package}", folder.name));
            }
        }
        if folder.name != "proto" && top().join(&folder.name).join("build.rs").exists() {
            wrong.push(format!(
                "{} may not have a build.rs: only proto generates code",
                folder.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Catches versions that drift apart: each dependency is declared once, in the workspace.
#[test]
fn versions_stand_in_the_workspace_only() {
    let workspace = manifest(&top().join("Cargo.toml"));
    let mut wrong = Vec::new();
    for folder in folders(&workspace) {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let table = folder.manifest.get(section).and_then(toml::Value::as_table);
            for (key, value) in table.into_iter().flatten() {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    wrong.push(format!(
                        "{}: {key} in {section} has no workspace = true",
                        folder.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Source {
    /// From the top of the workspace.
    path: String,
    text: String,
}

impl Source {
    /// Everything before the file's own tests.
    fn code(&self) -> &str {
        self.text
            .split("\n#[cfg(test)]\nmod ")
            .next()
            .unwrap_or(&self.text)
    }

    fn is_test(&self) -> bool {
        let part = |name: &str| self.path.split('/').any(|part| part == name);
        part("tests")
            || part("benches")
            || part("testing")
            || self.path.ends_with("_test.rs")
            || self.path.ends_with("tests.rs")
    }
}

fn sources() -> Vec<Source> {
    let workspace = manifest(&top().join("Cargo.toml"));
    let mut waiting: Vec<PathBuf> = folders(&workspace)
        .iter()
        .map(|folder| top().join(&folder.name))
        .collect();
    let mut sources = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)
            .expect("a folder of the workspace")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read_to_string(&path).expect("a source file is UTF-8");
                let path = path
                    .strip_prefix(top())
                    .expect("below the top")
                    .display()
                    .to_string();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

/// Code without the lines by which a crate takes the simulator's tokio and tonic for the real ones.
fn without_stand_ins(code: &str) -> String {
    let mut rest = code.to_owned();
    for name in ["tokio", "tonic"] {
        let lines = format!("#[cfg(madsim)]\nextern crate madsim_{name} as {name};\n");
        rest = rest.replacen(&lines, "\n\n", 1);
    }
    rest
}

/// Catches ways around the seams that the lints' ban list does not know.
#[test]
fn what_belongs_behind_a_seam_stands_there_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (text, places) in TEXT_ONLY_IN {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            if allowed {
                continue;
            }
            let code = without_stand_ins(source.code());
            let hits = code
                .lines()
                .enumerate()
                .filter(|(_, line)| line.contains(text) && !line.trim_start().starts_with("//"));
            wrong.extend(hits.map(|(place, _)| format!("{}:{}: {text}", source.path, place + 1)));
        }
        for text in NOWHERE {
            if source.code().contains(text) {
                wrong.push(format!("{}: {text}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Catches files that want to be two, and modules that do not say what they are for.
#[test]
fn files_are_short_and_open_with_their_purpose() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let code_lines = source.code().lines().count();
        if !source.is_test() && code_lines > CODE_LINES_MAX {
            wrong.push(format!("{}: {code_lines} lines without tests", source.path));
        }
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines", source.path));
        }
        let opens = source
            .text
            .lines()
            .find(|line| !line.starts_with("#!["))
            .unwrap_or_default();
        if !opens.starts_with("//!") && !source.is_test() {
            wrong.push(format!(
                "{}: does not open with its purpose (//!)",
                source.path
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
