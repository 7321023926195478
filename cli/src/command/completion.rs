//! `raftmq completion SHELL` and `raftmq man --out DIRECTORY`: made from the same description as --help.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::files;
use crate::terminal::{note, say_bytes};

/// Flags of `raftmq completion`.
#[derive(Args, Debug)]
pub(crate) struct CompletionArguments {
    /// bash: `source <(raftmq completion bash)`; zsh: into a file _raftmq of $fpath; fish: into
    /// ~/.config/fish/completions/raftmq.fish
    shell: Shell,
}

/// Flags of `raftmq man`.
#[derive(Args, Debug)]
pub(crate) struct ManArguments {
    /// Directory for raftmq.1 and one page for each command; made if needed
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
}

/// Prints the completion of a shell.
pub(crate) fn complete(arguments: &CompletionArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "raftmq", &mut script);
    say_bytes(script.trim_ascii_end());
    Ok(())
}

/// Writes the man pages.
pub(crate) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let out = &arguments.out;
    let failed = |error| Failure::during(format!("writing man pages to {}", out.display()), error);
    files::create_directories(out).map_err(failed)?;
    let mut command = super::Arguments::command();
    command.build();
    let mut count = 0;
    let mut waiting = vec![(command, String::new())];
    while let Some((command, above)) = waiting.pop() {
        let name = match above.as_str() {
            "" => command.get_name().to_owned(),
            above => format!("{above}-{}", command.get_name()),
        };
        let below = command.get_subcommands();
        let below = below.filter(|one| !one.is_hide_set() && one.get_name() != "help");
        waiting.extend(below.map(|one| (one.clone(), name.clone())));
        let mut page = Vec::new();
        let titled = command.name(name.clone());
        clap_mangen::Man::new(titled)
            .render(&mut page)
            .map_err(failed)?;
        let mut file = files::create(&out.join(format!("{name}.1"))).map_err(failed)?;
        file.write_all(&page).map_err(failed)?;
        count += 1;
    }
    note(format_args!("{count} pages written to {}", out.display()));
    Ok(())
}
