# Starts the broker of this pod. 1, 2 and 3 found the group; a later pod (a larger `replicas`), and one that `broker-ids` gives
# another number, lists itself beside them and waits until `raftmq group add-replica` takes it in.
set -eu

# The broker that runs in a pod: that of its number, unless `broker-ids` says otherwise.
broker_of() {
    other=$(sed -n "s/^ *$1  *\([1-9][0-9]*\) *\$/\1/p" /etc/raftmq/broker-ids | tail -n 1)
    echo "${other:-$1}"
}

pod=$POD_INDEX
case $pod in
    1 | 2 | 3) pods="1 2 3" ;;
    *) pods="1 2 3 $pod" ;;
esac
members=
for one in $pods; do
    host=broker-$one.broker.raftmq.svc
    members="$members{broker_id = $(broker_of "$one"), client_address = \"$host:8081\", peer_address = \"$host:9081\"},"
done
RAFTMQ_BROKER_ID=$(broker_of "$pod")
RAFTMQ_MEMBERS="[$members]"
export RAFTMQ_BROKER_ID RAFTMQ_MEMBERS
exec raftmq broker --config /etc/raftmq/broker.toml "$@"
