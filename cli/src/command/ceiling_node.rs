//! `raftmq ceiling-node`: one of the bare processes that `raftmq bench` measures itself against.

use clap::Args;

use crate::ceiling::{NodeArguments, run_node};
use crate::failure::Failure;

/// Flags of the hidden command.
#[derive(Args, Debug)]
pub(crate) struct CeilingNodeArguments {
    #[command(flatten)]
    node: NodeArguments,
}

/// Runs until it is killed or the process that started it is gone.
pub(crate) fn run(arguments: &CeilingNodeArguments) -> Result<(), Failure> {
    run_node(&arguments.node).map_err(|error| Failure::during("ceiling node", error))
}
