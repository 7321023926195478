//! Every rule of the configuration is refused by the name of its key.

use super::*;

fn member(broker_id: BrokerId) -> MemberConfig {
    MemberConfig {
        broker_id,
        client_address: format!("127.0.0.1:{}", 8080 + broker_id),
        peer_address: format!("127.0.0.1:{}", 9080 + broker_id),
    }
}

#[test]
fn the_default_is_valid_and_alone() {
    let config = BrokerConfig::default();
    config.validate().unwrap();
    assert_eq!(config.initial_members().len(), 1);
    assert_eq!(config.own_member().client_address, "127.0.0.1:8081");
}

#[test]
fn a_broken_rule_names_its_key() {
    type Break = fn(&mut BrokerConfig);
    let cases: Vec<(&str, Break)> = vec![
        ("cluster_id", |config| config.cluster_id.clear()),
        ("group", |config| config.group = "no spaces".to_owned()),
        ("broker_id", |config| config.broker_id = 0),
        ("data_dir", |config| config.data_dir = PathBuf::new()),
        ("listen", |config| config.listen = "8081".to_owned()),
        ("peer_listen", |config| {
            config.peer_listen = "host:port".to_owned()
        }),
        ("name_servers", |config| {
            config.name_servers.push("nowhere".to_owned())
        }),
        ("members", |config| {
            config.members = vec![member(1), member(1)]
        }),
        ("broker_id and members", |config| {
            config.members = vec![member(2), member(3)]
        }),
        ("advertise and members", |config| {
            config.members = vec![member(1)];
            config.advertise = "other:1".to_owned();
        }),
        ("auto_create_queue_count", |config| {
            config.auto_create_queue_count = 0
        }),
        ("message_bytes_max", |config| config.message_bytes_max = 0),
        ("request_bytes_max and message_bytes_max", |config| {
            config.request_bytes_max = MIB
        }),
        ("inflight_bytes_max and request_bytes_max", |config| {
            config.inflight_bytes_max = MIB
        }),
        ("segment_bytes and request_bytes_max", |config| {
            config.segment_bytes = MIB
        }),
        ("proposals_inflight_max", |config| {
            config.proposals_inflight_max = 0
        }),
        (
            "heartbeat_interval_ms and election_timeout_ms_min",
            |config| {
                config.heartbeat_interval_ms = config.election_timeout_ms_min;
            },
        ),
        (
            "election_timeout_ms_min and election_timeout_ms_max",
            |config| {
                config.election_timeout_ms_max = config.election_timeout_ms_min;
            },
        ),
    ];
    for (key, break_rule) in cases {
        let mut config = BrokerConfig::default();
        break_rule(&mut config);
        let error = config.validate().expect_err(key);
        assert_eq!(error.key, key, "{error}");
    }
}
