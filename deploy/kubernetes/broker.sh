# Starts the broker of this pod. 1, 2 and 3 found the group; a later one (a larger `replicas`) lists itself beside them
# and waits until `raftmq group add-replica` or `replace` takes it in.
set -eu
case $RAFTMQ_BROKER_ID in
    1 | 2 | 3) ids="1 2 3" ;;
    *) ids="1 2 3 $RAFTMQ_BROKER_ID" ;;
esac
members=
for id in $ids; do
    host=broker-$id.broker.raftmq.svc
    members="$members{broker_id = $id, client_address = \"$host:8081\", peer_address = \"$host:9081\"},"
done
export RAFTMQ_MEMBERS="[$members]"
exec raftmq broker --config /etc/raftmq/broker.toml "$@"
