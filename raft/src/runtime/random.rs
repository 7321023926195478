//! Randomness for openraft: election timeouts and backoff, drawn from the simulator's seed there.

use std::convert::Infallible;

/// A handle on the generator of the current thread, or of the simulation.
pub(crate) struct Random;

#[cfg(not(madsim))]
impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand::rng().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand::rng().try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        rand::rng().try_fill_bytes(bytes)
    }
}

#[cfg(madsim)]
impl rand::TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(madsim::rand::RngCore::next_u32(
            &mut madsim::rand::thread_rng(),
        ))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(madsim::rand::RngCore::next_u64(
            &mut madsim::rand::thread_rng(),
        ))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        madsim::rand::RngCore::fill_bytes(&mut madsim::rand::thread_rng(), bytes);
        Ok(())
    }
}
