//! One channel per address, kept while it is used.
//!
//! Bounded: at [`CHANNELS_MAX`] the one unused for longest makes room, and what nobody used for [`CHANNEL_IDLE_MAX`] goes
//! with the next look into the pool. Calls that are under way keep their channel alive by holding a clone.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// The most channels held open at once. A cluster has fewer brokers than this.
pub const CHANNELS_MAX: usize = 64;

/// A channel that nobody asked for during this time is closed.
pub const CHANNEL_IDLE_MAX: Duration = Duration::from_secs(300);

/// Values by address; `C` is a cheap handle to something that is costly to open.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    open: Mutex<BTreeMap<String, Pooled<C>>>,
}

#[derive(Debug)]
struct Pooled<C> {
    client: C,
    used: Instant,
}

impl<C: Clone> Pool<C> {
    pub(crate) fn new() -> Pool<C> {
        let open = Mutex::new(BTreeMap::new());
        Pool { open }
    }

    /// What is open to `address`, or what `connect` makes. `connect` must not block.
    pub(crate) fn get<E>(
        &self,
        address: &str,
        now: Instant,
        connect: impl FnOnce() -> Result<C, E>,
    ) -> Result<C, E> {
        let mut open = self
            .open
            .lock()
            .expect("nothing panics while the pool is locked");
        if let Some(pooled) = open.get_mut(address) {
            pooled.used = now;
            return Ok(pooled.client.clone());
        }
        open.retain(|_, pooled| now.duration_since(pooled.used) < CHANNEL_IDLE_MAX);
        if open.len() >= CHANNELS_MAX {
            let oldest = open.iter().min_by_key(|(_, pooled)| pooled.used);
            if let Some(address) = oldest.map(|(address, _)| address.clone()) {
                open.remove(&address);
            }
        }
        let client = connect()?;
        let pooled = Pooled {
            client: client.clone(),
            used: now,
        };
        open.insert(address.to_owned(), pooled);
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn get(pool: &Pool<u32>, address: &str, now: Instant, fresh: u32) -> u32 {
        pool.get(address, now, || Ok::<_, Infallible>(fresh))
            .unwrap()
    }

    fn len(pool: &Pool<u32>) -> usize {
        pool.open.lock().unwrap().len()
    }

    /// Catches a new connection per call.
    #[test]
    fn a_channel_is_used_again() {
        let (pool, now) = (Pool::new(), Instant::now());
        assert_eq!(get(&pool, "a", now, 1), 1);
        assert_eq!(get(&pool, "a", now, 2), 1);
    }

    /// Catches a pool that grows with every address it ever saw.
    #[test]
    fn the_pool_is_bounded_and_forgets_the_least_used() {
        let (pool, start) = (Pool::new(), Instant::now());
        for place in 0..CHANNELS_MAX as u64 {
            let now = start + Duration::from_millis(place);
            get(&pool, &place.to_string(), now, 1);
        }
        let later = start + Duration::from_secs(1);
        get(&pool, "0", later, 2);
        get(&pool, "new", later, 1);
        assert_eq!(len(&pool), CHANNELS_MAX);
        assert_eq!(get(&pool, "0", later, 2), 1, "used lately, so kept");
        assert_eq!(get(&pool, "1", later, 2), 2, "unused for longest, so gone");
    }

    /// Catches connections to brokers that left being held for ever.
    #[test]
    fn idle_channels_are_closed() {
        let (pool, start) = (Pool::new(), Instant::now());
        get(&pool, "gone", start, 1);
        get(&pool, "other", start + CHANNEL_IDLE_MAX, 1);
        assert_eq!(len(&pool), 1);
    }
}
