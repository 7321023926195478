//! Any bytes as the offer of a snapshot: no name in it leads out of the place for what is received.
#![no_main]

use std::sync::LazyLock;

use raft::fuzz::Receiver;
use raftmq_fuzz::World;

struct Shared(&'static World, Receiver);
// The fuzzer has one thread.
unsafe impl Sync for Shared {}
unsafe impl Send for Shared {}
static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let world = World::leak();
    Shared(
        world,
        Receiver::new(world.data_dir.clone(), world.log.clone()),
    )
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Shared(world, receiver) = &*SHARED;
    world.runtime.block_on(receiver.offer(data));
});
