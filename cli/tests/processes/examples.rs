//! The SDK's examples, each as a program of its own against a real group.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cli::process::Certificate;

use super::cluster::{Cluster, program};

/// Longest time that one example takes.
const EXAMPLE_PATIENCE: Duration = Duration::from_secs(60);

/// Names of the files in `client/examples/`, the one first that sends what another reads.
fn names() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples");
    let files = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort_by_key(|name| (name != "producer", name.clone()));
    names
}

/// Where cargo puts an example when it builds the workspace's tests.
fn built(name: &str) -> PathBuf {
    let path = program().with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo test --release --workspace builds it",
        path.display()
    );
    path
}

/// Catches an example that does not do what it says, or that hangs.
#[tokio::test]
async fn every_example_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::for_this_machine(directory.path()).unwrap();
    let cluster = Cluster::start_with(|plan| {
        plan.with("auto_create_topics", true)
            .with_certificate(certificate.clone())
    })
    .await;
    let names = names();
    assert!(names.len() >= 14, "{names:?}");
    for name in names {
        let mut command = Command::new(built(&name));
        command
            .arg(cluster.plan().client_address(1))
            .env("RAFTMQ_ADMIN", cluster.plan().admin_addresses().join(","))
            .env("RAFTMQ_SECRET_FILE", cluster.plan().secret_file())
            .stdin(Stdio::null());
        if name == "tls" {
            command.arg(certificate.certificate());
        }
        let running = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(EXAMPLE_PATIENCE, running).await;
        let output = output.unwrap_or_else(|_| panic!("{name} hangs"));
        let output = output.unwrap().unwrap();
        let [out, error] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{name}: {out}\n{error}");
        assert!(!out.trim().is_empty(), "{name} says nothing");
    }
}
