//! The places of a server: which connections it has, who gives way to a newcomer, and who is cut off.
//!
//! When all places are taken, an idle connection gives way: the one that has been idle longest of the address that has
//! most. So no address keeps others out by being there. A connection with a call under way gives way only where nobody
//! is idle, and only to an address that has fewer. Must never close a connection that has proved.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::account::{Account, Stall};
use super::bounds::{Bounds, Counters, Kind, Patience, Want};

/// How often it is looked who stands still.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Connections that may still be ending beside those that have places.
const ENDING_MAX: usize = 256;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    bounds: Option<Bounds>,
    counters: Arc<Counters>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By origin, then in the order in which they came.
    connections: BTreeMap<IpAddr, BTreeMap<u64, Arc<Account>>>,
    count: usize,
    /// How many of them were told to end.
    ending: usize,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    pub(super) account: Arc<Account>,
}

impl Places {
    pub(super) fn new(max: usize, bounds: Option<Bounds>) -> Arc<Places> {
        let counters = bounds.as_ref().map(|bounds| bounds.counters().clone());
        Arc::new(Places {
            max,
            bounds,
            counters: counters.unwrap_or_default(),
            taken: Mutex::default(),
        })
    }

    /// A place for one more connection, if there is one or somebody gives way.
    pub(super) fn take(self: &Arc<Places>, peer: SocketAddr) -> Option<Place> {
        let account = Arc::new(Account::new(peer, self.bounds.as_ref()));
        let origin = account.origin();
        let mut taken = self.taken();
        if taken.count - taken.ending >= self.max {
            let victim = match taken.count < self.max + ENDING_MAX {
                true => taken.gives_way(origin),
                false => None,
            };
            let Some(victim) = victim else {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%peer, open = taken.count, "refusing a connection: too many are open");
                return None;
            };
            self.counters.gave_way.fetch_add(1, Ordering::Relaxed);
            let (closed, idle) = (victim.peer, victim.idle_since());
            tracing::debug!(peer = %closed, newcomer = %peer, is_idle = idle.is_some(), "a connection gives way");
            taken.end(&victim);
        }
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        let of_origin = taken.connections.entry(origin).or_default();
        of_origin.insert(number, account.clone());
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Some(Place {
            places: self.clone(),
            number,
            account,
        })
    }

    /// Cuts off who stands still, for as long as it is polled.
    pub(super) async fn watch(&self) -> ! {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(bounds) = &self.bounds {
                self.cut_stalled(bounds);
            }
        }
    }

    fn cut_stalled(&self, bounds: &Bounds) {
        let (now, patience) = (Instant::now(), bounds.patience());
        let mut taken = self.taken();
        let all: Vec<Arc<Account>> = (taken.connections.values())
            .flat_map(|of_origin| of_origin.values().cloned())
            .filter(|account| account.shares().is_some())
            .collect();
        for account in &all {
            if let Some(stall) = account.stalled(now, patience) {
                self.cut(&mut taken, account, stall);
            }
        }
        for kind in Kind::ALL {
            for want in bounds.wants(kind, now) {
                for (account, stall) in stand_in_the_way(&all, kind, want, (now, patience)) {
                    self.cut(&mut taken, &account, stall);
                }
            }
        }
    }

    fn cut(&self, taken: &mut Taken, account: &Account, stall: Stall) {
        if account.is_cut() {
            return;
        }
        let (counter, reason) = match stall.is_upload {
            true => (&self.counters.requests_cut, "a request stopped arriving"),
            false => (&self.counters.answers_cut, "an answer is not read"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let (peer, stalled_ms) = (account.peer, stall.lasts.as_millis() as u64);
        tracing::warn!(%peer, reason, stalled_ms, bytes = stall.bytes, "closing a connection");
        taken.end(account);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is to go so that somebody gets what he has waited for: of those who stand still, those who have for longest, and no
/// more than it takes.
fn stand_in_the_way(
    all: &[Arc<Account>],
    kind: Kind,
    want: Want,
    (now, patience): (Instant, Patience),
) -> Vec<(Arc<Account>, Stall)> {
    let mut freed = 0;
    let mut stalled = Vec::new();
    let concerned = all.iter().filter(|account| match want.of {
        None => true,
        Some(origin) => account.origin() == origin,
    });
    for account in concerned {
        if account.is_cut() {
            // On its way out.
            freed += account.shares().map_or(0, |shares| shares.of(kind).held());
        } else if let Some((stall, held)) = account.stalled_with(kind, now, patience) {
            stalled.push((account.clone(), stall, held));
        }
    }
    stalled.sort_by_key(|(_, stall, _)| std::cmp::Reverse(stall.lasts));
    let needed = stalled.into_iter().take_while(|(_, _, held)| {
        let is_needed = freed < want.bytes;
        freed += held;
        is_needed
    });
    needed.map(|(account, stall, _)| (account, stall)).collect()
}

impl Taken {
    fn end(&mut self, account: &Account) {
        if !account.is_cut() {
            self.ending += 1;
            account.cut();
        }
    }

    /// Who gives way to a newcomer from `origin`.
    fn gives_way(&self, origin: IpAddr) -> Option<Arc<Account>> {
        let open = |account: &&Arc<Account>| !account.is_cut() && !account.is_proven();
        let mut origins: Vec<(usize, &IpAddr)> = (self.connections.iter())
            .map(|(origin, all)| (all.values().filter(open).count(), origin))
            .collect();
        origins.sort_unstable_by(|one, other| other.cmp(one));
        let idle = origins.iter().flat_map(|(count, origin)| {
            let open = self.connections[*origin].values().filter(open);
            open.filter_map(move |account| Some((*count, account.idle_since()?, account)))
        });
        // Of those that have as many, the one idle longest.
        let idle = idle.min_by_key(|(count, since, _)| (std::cmp::Reverse(*count), *since));
        if let Some((_, _, account)) = idle {
            return Some(account.clone());
        }
        let (most, hog) = origins.first()?;
        let of_newcomer = origins.iter().find(|(_, other)| **other == origin);
        let has = of_newcomer.map_or(0, |(count, _)| *count);
        // Or two addresses would take each other's places for ever.
        if has + 1 >= *most {
            return None;
        }
        self.connections[*hog].values().rfind(open).cloned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        let origin = self.account.origin();
        if let Some(of_origin) = taken.connections.get_mut(&origin) {
            of_origin.remove(&self.number);
            if of_origin.is_empty() {
                taken.connections.remove(&origin);
            }
        }
        taken.count -= 1;
        taken.ending -= usize::from(self.account.is_cut());
        (self.places.counters.connections).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    /// Catches one address that keeps others out by being there.
    #[tokio::test]
    async fn the_idle_of_whoever_has_most_give_way() {
        let places = Places::new(4, None);
        let hog: Vec<Place> = (0..3)
            .map(|port| places.take(peer(1, port)).unwrap())
            .collect();
        let other = places.take(peer(2, 0)).unwrap();
        let call = hog[0].account.begin().unwrap();
        let newcomer = places.take(peer(3, 0)).unwrap();
        let cut = |place: &Place| place.account.is_cut();
        // The first one has a call, the second has been idle longest of the hog's.
        assert_eq!(
            hog.iter().map(cut).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert!(!cut(&other) && !cut(&newcomer));
        drop(call);
    }

    /// Catches a call that ends for a newcomer although somebody is idle, or that never ends for an address that has none;
    /// and two addresses that push each other out for ever.
    #[tokio::test]
    async fn calls_end_only_where_nobody_is_idle_and_for_who_has_fewer() {
        let places = Places::new(3, None);
        let hog: Vec<Place> = (0..3)
            .map(|port| places.take(peer(1, port)).unwrap())
            .collect();
        let calls: Vec<_> = hog
            .iter()
            .map(|place| place.account.begin().unwrap())
            .collect();
        assert!(places.take(peer(1, 9)).is_none(), "the hog got one more");
        let newcomer = places.take(peer(2, 0)).unwrap();
        let busy = newcomer.account.begin().unwrap();
        let cut = |place: &Place| place.account.is_cut();
        assert_eq!(
            hog.iter().map(cut).collect::<Vec<_>>(),
            [false, false, true]
        );
        assert!(places.take(peer(2, 1)).is_none(), "as many as the hog");
        drop((busy, calls));
    }

    /// Catches an address whose connections go first for no other reason than its number.
    #[tokio::test]
    async fn where_all_have_as_many_the_one_idle_longest_gives_way() {
        let places = Places::new(3, None);
        let mut taken = Vec::new();
        for host in [1, 3, 2] {
            taken.push(places.take(peer(host, 0)).unwrap());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _newcomer = places.take(peer(4, 0)).unwrap();
        let cut: Vec<bool> = (taken.iter()).map(|place| place.account.is_cut()).collect();
        assert_eq!(cut, [true, false, false]);
    }

    /// Catches a place that is not given back, and a server that strangers keep from its peers.
    #[tokio::test]
    async fn places_come_back_and_who_proved_stays() {
        let places = Places::new(1, None);
        let proven = places.take(peer(1, 0)).unwrap();
        proven.account.set_proven(true);
        assert!(places.take(peer(2, 0)).is_none());
        drop(proven);
        let first = places.take(peer(2, 0)).unwrap();
        let second = places.take(peer(2, 1)).unwrap();
        assert!(first.account.is_cut() && !second.account.is_cut());
        drop(first);
        assert_eq!(places.taken().count, 1);
        assert_eq!(places.taken().ending, 0);
    }

    fn crowded() -> (Arc<Places>, Bounds) {
        const MIB: u64 = 1 << 20;
        let options = crate::network::BoundsOptions {
            bytes_max: 16 * MIB,
            request_bytes_max: MIB,
            answer_bytes_max: MIB,
        };
        let patience = Patience {
            alone: Duration::from_secs(60),
            pressed: Duration::from_millis(50),
        };
        let bounds = Bounds::with_patience(&options, patience);
        (Places::new(100, Some(bounds.clone())), bounds)
    }

    /// Begins an upload that takes all that a connection may have, and does not come.
    fn upload(place: &Place) -> Arc<crate::network::account::Call> {
        let share = place.account.shares().unwrap().of(Kind::Uploads);
        let call = place.account.begin().unwrap();
        call.hold(share.try_take(share.max).unwrap());
        call.expect(share.max);
        call
    }

    /// Catches one that waits a moment at whose word all are cut, more that are cut than it takes, and others than those who
    /// have stood still longest.
    #[tokio::test]
    async fn for_who_waits_only_as_many_are_cut_as_it_takes() {
        let (places, bounds) = crowded();
        let hogs: Vec<Place> = (0..5)
            .map(|host| places.take(peer(host, 0)).unwrap())
            .collect();
        let mut uploads = Vec::new();
        for hog in &hogs {
            uploads.push(upload(hog));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Its bytes came, and it is as old as the second by now.
        uploads[0].arrived(1 << 20);
        let cut = || {
            hogs.iter()
                .map(|hog| hog.account.is_cut())
                .collect::<Vec<_>>()
        };
        let waits = places.take(peer(9, 0)).unwrap();
        let share = waits.account.shares().unwrap().of(Kind::Uploads).clone();
        let mut room = Box::pin(share.take(share.max));
        assert!(futures::poll!(&mut room).is_pending());
        places.cut_stalled(&bounds);
        assert_eq!(cut(), [false; 5], "it has not waited yet");
        tokio::time::sleep(Duration::from_millis(100)).await;
        places.cut_stalled(&bounds);
        places.cut_stalled(&bounds);
        assert_eq!(cut(), [false, true, false, false, false]);
        drop(uploads.remove(1));
        assert!(futures::poll!(&mut room).is_ready());
    }

    /// Catches an address that has others cut because its own part is too small.
    #[tokio::test]
    async fn who_takes_too_much_has_only_its_own_cut() {
        let (places, bounds) = crowded();
        let others = places.take(peer(1, 0)).unwrap();
        let _other = upload(&others);
        let first = places.take(peer(2, 0)).unwrap();
        let second = places.take(peer(2, 1)).unwrap();
        let upload = upload(&first);
        let share = second.account.shares().unwrap().of(Kind::Uploads).clone();
        let mut room = Box::pin(share.take(share.max));
        assert!(futures::poll!(&mut room).is_pending());
        tokio::time::sleep(Duration::from_millis(100)).await;
        places.cut_stalled(&bounds);
        assert!(first.account.is_cut() && !others.account.is_cut());
        drop(upload);
        assert!(futures::poll!(&mut room).is_ready());
    }
}
