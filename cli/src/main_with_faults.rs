//! `raftmq-with-faults`: the same program on a disk that can be made to fail, for the tests on real processes
//! (`RAFTMQ_TEST_DISK_FAULTS`). Never given to users: in `raftmq` there is no such hook.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::main(host::testing::host_with_disk_faults())
}
