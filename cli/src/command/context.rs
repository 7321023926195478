//! `raftmq context add|list|use|show|remove`: names for systems.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::contexts::{self, Context, Contexts};
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::table;

/// Flags of `raftmq context`.
#[derive(Args, Debug)]
pub(crate) struct ContextArguments {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Name a system; a name that is taken gets the new addresses
    Add {
        name: String,
        /// Its name servers or brokers, separated by commas
        #[arg(
            long,
            value_name = "HOST:PORT,…",
            value_delimiter = ',',
            required = true
        )]
        seeds: Vec<String>,
        /// Speak TLS there and trust the certificates of this file (PEM)
        #[arg(long, value_name = "FILE")]
        tls_ca: Option<PathBuf>,
        /// Where its operators are served, separated by commas
        #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
        admin: Vec<String>,
        /// File with its secret
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// All contexts
    List,
    /// Use a context from now on
    Use { name: String },
    /// The addresses of a context, without a name of the current one
    Show { name: Option<String> },
    /// Forget a context
    Remove { name: String },
}

/// Reads or changes the file of contexts; talks to nobody.
pub(crate) fn run(arguments: ContextArguments) -> Result<(), Failure> {
    let path = contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let output = arguments.output;
    let done = |name: &str, what: &str| {
        output.show(
            || json!({ "context": name, "done": what }),
            || format!("context {name} {what}"),
        );
    };
    match arguments.verb {
        Verb::Add {
            name,
            seeds,
            tls_ca,
            admin,
            secret_file,
        } => {
            let absolute = |path: Option<PathBuf>| {
                let path = path.map(std::path::absolute).transpose();
                path.map_err(|error| Failure::during("finding the file", error))
            };
            let context = Context {
                seeds,
                tls_ca: absolute(tls_ca)?,
                admin,
                secret_file: absolute(secret_file)?,
            };
            contexts.add(&name, context)?;
            contexts.save(&path)?;
            done(&name, "added");
        }
        Verb::Use { name } => {
            contexts.choose(&name)?;
            contexts.save(&path)?;
            done(&name, "is used from now on");
        }
        Verb::Remove { name } => {
            contexts.remove(&name)?;
            contexts.save(&path)?;
            done(&name, "removed");
        }
        Verb::List => list(&contexts, output),
        Verb::Show { name } => show(&contexts, name, output)?,
    }
    Ok(())
}

fn list(contexts: &Contexts, output: Output) {
    let is_current = |name: &String| contexts.current.as_ref() == Some(name);
    let document = || {
        let all = contexts.contexts.iter().map(|(name, context)| {
            json!({
                "name": name,
                "seeds": context.seeds,
                "tls_ca": context.tls_ca,
                "admin": context.admin,
                "secret_file": context.secret_file,
                "current": is_current(name),
            })
        });
        all.collect()
    };
    output.show(document, || {
        let rows: Vec<Vec<String>> = contexts
            .contexts
            .iter()
            .map(|(name, context)| {
                let mark = if is_current(name) { "*" } else { "" };
                vec![mark.to_owned(), name.clone(), context.seeds.join(",")]
            })
            .collect();
        table(&["", "context", "seeds"], &rows)
    });
}

fn show(contexts: &Contexts, name: Option<String>, output: Output) -> Result<(), Failure> {
    let name = name.or_else(|| contexts.current.clone()).ok_or_else(|| {
        let reason = "no context is in use; `raftmq context use NAME` chooses one";
        Failure::NotFound(reason.to_owned())
    })?;
    let context = contexts.get(&name)?;
    output.show(
        || {
            json!({
                "name": name,
                "seeds": context.seeds,
                "tls_ca": context.tls_ca,
                "admin": context.admin,
                "secret_file": context.secret_file,
            })
        },
        || context.seeds.join(","),
    );
    Ok(())
}
