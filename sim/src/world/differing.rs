//! Brokers of one group that are configured differently: halfway through a change of configuration, or by mistake.
//!
//! Only what may differ at no cost to what is promised. Whose setting counts, the leader's or each one's own, is the product's
//! business; a replica whose tables depended on its own would be found by `equal-tables`.

use broker::BrokerConfig;

use crate::chance::Chance;

const KIB: u64 = 1 << 10;

/// How many worlds there are for one of them.
const ONE_IN: u64 = 3;

/// Changes the configuration of one broker, if the world of `seed` is one of those.
pub(super) fn differ(seed: u64, broker_id: u8, config: &mut BrokerConfig) {
    if !Chance::new(seed, "differing configurations").one_in(ONE_IN) {
        return;
    }
    let mut chance = Chance::new(seed ^ (u64::from(broker_id) << 48), "a configuration");
    config.dedup_bytes_max = *chance.pick(&[2, 3, 8]) * KIB * KIB;
    // Never shorter than what all have in common: so long whoever leads remembers.
    config.dedup_window_ms += *chance.pick(&[0, 15_000, 75_000]);
    config.entry_bytes_target = *chance.pick(&[4, 64, 1_024]) * KIB;
    config.proposals_inflight_max = *chance.pick(&[1, 4, 16]);
    config.checkpoint_log_bytes = *chance.pick(&[16, 64, 512]) * KIB;
    config.pull_messages_max = *chance.pick(&[3, 32, 1_024]);
    config.pull_bytes_max = *chance.pick(&[8, 64, 4_096]) * KIB;
    config.retention_interval_ms = *chance.pick(&[300, config.retention_interval_ms]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches settings that no broker would start with, and worlds in which nothing differs.
    #[test]
    fn brokers_differ_and_start() {
        let mut differing = 0;
        for seed in 0..300 {
            let of = |broker_id: u8| {
                let mut config = crate::world::Shape::default().broker;
                config.broker_id = broker_id.into();
                differ(seed, broker_id, &mut config);
                config.validate().unwrap();
                config
            };
            let (one, other) = (of(1), of(2));
            let told = |config: &BrokerConfig| {
                (
                    config.dedup_bytes_max,
                    config.entry_bytes_target,
                    config.pull_messages_max,
                    config.checkpoint_log_bytes,
                )
            };
            differing += u64::from(told(&one) != told(&other));
        }
        assert!((60..150).contains(&differing), "{differing}");
    }
}
