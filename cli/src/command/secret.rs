//! `raftmq secret new`: the secret by which a cluster's servers and operators know each other.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use host::network::ClusterSecret;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Flags of `raftmq secret`.
#[derive(Args, Debug)]
pub(crate) struct SecretArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make a secret, in a file that only its owner can read. Copy it to every machine of the cluster
    New {
        file: PathBuf,
        /// Where there is one already, leave it and be content
        #[arg(long)]
        if_missing: bool,
    },
}

/// Makes a file; talks to nobody.
pub(crate) fn run(arguments: SecretArguments) -> Result<(), Failure> {
    let Verb::New { file, if_missing } = arguments.verb;
    let failed = |error: host::network::NetworkError| Failure::Operation(error.to_string());
    let made = ClusterSecret::create(&file).map_err(failed)?;
    if !made && !if_missing {
        return Err(Failure::Operation(format!(
            "{} exists: servers that hold another secret are strangers to each other, so it is not replaced",
            file.display()
        )));
    }
    // One that is there must be one, or the next start says so.
    ClusterSecret::load(&file).map_err(failed)?;
    let what = if made { "made" } else { "was there already" };
    arguments.output.show(
        || json!({ "file": file, "made": made }),
        || format!("secret {} {what}", file.display()),
    );
    Ok(())
}
