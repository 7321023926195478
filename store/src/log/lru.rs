//! A bounded cache that lets go of what was not used for longest. Ordered maps only, so that two
//! runs of the simulator agree.

use std::collections::BTreeMap;

/// Values of known weight under numbers.
pub(crate) struct Lru<V> {
    values: BTreeMap<u64, Cached<V>>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    weight: u64,
    weight_max: u64,
    count_max: usize,
}

struct Cached<V> {
    value: V,
    weight: u64,
    last_use: u64,
}

impl<V: Clone> Lru<V> {
    pub(crate) fn new(weight_max: u64, count_max: usize) -> Lru<V> {
        Lru {
            values: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            weight: 0,
            weight_max,
            count_max,
        }
    }

    pub(crate) fn get(&mut self, key: u64) -> Option<V> {
        let cached = self.values.get_mut(&key)?;
        self.uses += 1;
        self.by_use.remove(&cached.last_use);
        cached.last_use = self.uses;
        self.by_use.insert(self.uses, key);
        Some(cached.value.clone())
    }

    /// Keeps a value, even one above the bound until the next is put in.
    pub(crate) fn put(&mut self, key: u64, value: V, weight: u64) {
        self.remove(key);
        while self.values.len() >= self.count_max || self.weight + weight > self.weight_max {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            self.remove(oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key);
        self.values.insert(
            key,
            Cached {
                value,
                weight,
                last_use: self.uses,
            },
        );
        self.weight += weight;
    }

    pub(crate) fn remove(&mut self, key: u64) {
        if let Some(cached) = self.values.remove(&key) {
            self.by_use.remove(&cached.last_use);
            self.weight -= cached.weight;
        }
    }

    /// Removes everything at or above `key`.
    pub(crate) fn remove_from(&mut self, key: u64) {
        for (_, cached) in self.values.split_off(&key) {
            self.by_use.remove(&cached.last_use);
            self.weight -= cached.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a cache that grows without bound or lets go of what is used.
    #[test]
    fn the_longest_unused_goes_first() {
        let mut lru = Lru::new(10, 3);
        for key in 0..3 {
            lru.put(key, key, 3);
        }
        assert_eq!(lru.get(0), Some(0));
        lru.put(3, 3, 3);
        assert_eq!(lru.get(1), None, "the count is bounded");
        lru.put(4, 4, 6);
        assert_eq!(
            (lru.get(0), lru.get(2), lru.get(3)),
            (None, None, Some(3)),
            "so is the weight"
        );
        lru.put(3, 33, 3);
        assert_eq!((lru.get(3), lru.weight), (Some(33), 9));
        lru.remove_from(4);
        assert_eq!((lru.get(4), lru.weight, lru.by_use.len()), (None, 3, 1));
        lru.put(9, 9, 100);
        assert_eq!(
            (lru.get(9), lru.values.len()),
            (Some(9), 1),
            "one large value is kept alone"
        );
    }
}
