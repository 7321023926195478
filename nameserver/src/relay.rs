//! Where a client's call goes, and what the client is told when it cannot go there.
//!
//! A call goes to the leader of the group that has its topic. If that one cannot be reached, the group's other replicas
//! are asked: one of them leads now, or knows who does. Every call of the contract may be repeated by its client, so it
//! may be repeated here; a send that was stored already is recognised by its message id.
//!
//! Never a hang and never a bare transport error: an official client takes gRPC's `UNAVAILABLE` for a dead name server.

use std::borrow::Cow;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use gateway::{Answer, AnswerStream, CLIENT_ID, Forwarder, is_unreachable, set_leader};
use host::Shutdown;
use model::namespace::qualified;
use proto::v2::{self, Code, MessageQueue, Resource};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::directory::Directory;
use crate::route_table::{RouteTable, Share, candidates, leader};

/// Processes that one call is tried at.
const CANDIDATES_MAX: usize = 3;

/// Whom a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any leader can answer.
    Any,
    /// The leader of a group that has the topic: of the named group if that one has it.
    Topic {
        /// The topic with its namespace.
        topic: String,
        /// The broker group, if the client names one.
        group: Option<String>,
    },
}

impl Target {
    pub(crate) fn topic(topic: Option<&Resource>) -> Target {
        match topic {
            Some(topic) => Target::Topic {
                topic: full_name(topic).into_owned(),
                group: None,
            },
            None => Target::Any,
        }
    }

    pub(crate) fn queue(queue: Option<&MessageQueue>) -> Target {
        let Some((queue, topic)) = queue.and_then(|queue| Some((queue, queue.topic.as_ref()?)))
        else {
            return Target::Any;
        };
        let group = queue.broker.as_ref().map(|broker| broker.name.clone());
        Target::Topic {
            topic: full_name(topic).into_owned(),
            group,
        }
    }
}

/// The one name of a topic within the cluster.
pub(crate) fn full_name(topic: &Resource) -> Cow<'_, str> {
    qualified(&topic.resource_namespace, &topic.name)
}

/// The processes to try for `target`, in order.
///
/// A topic that nobody has goes to the first group, always the same one, so that two name servers that have it created
/// at the same time create it once.
pub(crate) fn route(table: &RouteTable, target: &Target) -> Vec<String> {
    let groups = table.registrations();
    let mut addresses = match target {
        Target::Any => {
            let leaders = groups.iter().filter_map(|group| leader(group));
            let leaders = leaders.map(|leader| leader.client_address.clone());
            leaders
                .chain(
                    groups
                        .first()
                        .map_or_else(Vec::new, |group| candidates(group)),
                )
                .collect()
        }
        Target::Topic { topic, group } => {
            let shares = table.shares(topic);
            let named = |share: &&Share<'_>| Some(&share.registration.group) == group.as_ref();
            match shares.iter().find(named).or(shares.first()) {
                Some(share) => candidates(share.registration),
                None => groups
                    .first()
                    .map_or_else(Vec::new, |group| candidates(group)),
            }
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(address.clone()));
    addresses.truncate(CANDIDATES_MAX);
    addresses
}

/// The processes to try for a call that only this broker group may answer, in order; nobody if it is not known.
fn route_to(table: &RouteTable, group: &str) -> Vec<String> {
    let mut groups = table.registrations().iter();
    let group = groups.find(|registration| registration.group == group);
    let mut addresses = group.map_or_else(Vec::new, |group| candidates(group));
    addresses.truncate(CANDIDATES_MAX);
    addresses
}

/// Whether the caller says who it is.
pub(crate) fn names_client(metadata: &MetadataMap) -> bool {
    metadata.get(CLIENT_ID).is_some_and(|id| !id.is_empty())
}

/// What a client without a name is told.
pub(crate) const NO_CLIENT_ID: &str = "the header x-mq-client-id is missing";

/// What a client is told when nobody leads.
pub(crate) const NO_LEADER: &str = "no leader is known at this moment, try again";

/// Forwards calls by the newest table.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) directory: Arc<Directory>,
    pub(crate) forwarder: Forwarder,
    pub(crate) shutdown: Shutdown,
}

impl Relay {
    /// Forwards a call with one answer.
    pub(crate) async fn unary<Q: Clone, A: Answer>(
        &self,
        target: Target,
        request: Request<Q>,
        call: impl AsyncFn(Forwarder, String, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        self.forward(target, request, A::refused, denies::<A>, call)
            .await
    }

    /// Forwards a call with a stream of answers. If the stream breaks, its last item says so.
    pub(crate) async fn server_stream<Q: Clone, A: Answer + Send + 'static>(
        &self,
        target: Target,
        request: Request<Q>,
        call: impl AsyncFn(Forwarder, String, Request<Q>) -> Result<Response<AnswerStream<A>>, Status>,
    ) -> Result<Response<AnswerStream<A>>, Status> {
        let refuse = |code, reason: String| one(A::refused(code, reason));
        // A stream is not looked into; what answers with one changes nothing that its client counts on.
        let denies = |_: &AnswerStream<A>| false;
        let answers = self.forward(target, request, refuse, denies, call).await?;
        Ok(answers.map(|answers| {
            let explained = answers.map(|answer| match answer {
                Err(status) if is_unreachable(&status) => {
                    Ok(A::refused(Code::ProxyTimeout, status.message()))
                }
                answer => answer,
            });
            explained.boxed()
        }))
    }

    async fn forward<Q: Clone, A>(
        &self,
        target: Target,
        request: Request<Q>,
        refuse: impl Fn(Code, String) -> A,
        denies: impl Fn(&A) -> bool,
        call: impl AsyncFn(Forwarder, String, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Response<A>, Status> {
        if !names_client(request.metadata()) {
            return Ok(Response::new(refuse(
                Code::ClientIdRequired,
                NO_CLIENT_ID.to_owned(),
            )));
        }
        self.directory.filled().await;
        let table = self.directory.table();
        let addresses = match gateway::meant_group(request.metadata()) {
            Some(group) => route_to(&table, group),
            None => route(&table, &target),
        };
        let (metadata, _, message) = request.into_parts();
        // Why nobody knows whether the call was carried out. As long as nothing was sent, a refusal is certain.
        let mut unknown = None;
        for address in &addresses {
            let mut attempt = Request::new(message.clone());
            *attempt.metadata_mut() = metadata.clone();
            match call(self.forwarder.clone(), address.clone(), attempt).await {
                Err(status) if is_unreachable(&status) => {
                    unknown = Some(status.message().to_owned());
                    if status.code() == tonic::Code::DeadlineExceeded {
                        break;
                    }
                }
                settled => return Ok(certain(settled?, unknown, denies, refuse)),
            }
        }
        let mut refused = Response::new(match unknown {
            Some(reason) => refuse(Code::ProxyTimeout, reason),
            None => refuse(Code::HaNotAvailable, NO_LEADER.to_owned()),
        });
        if let Some(leader) = addresses.first() {
            set_leader(refused.metadata_mut(), leader);
        }
        Ok(refused)
    }
}

/// Whether an answer says that nothing was done, for reasons that lie in the moment.
fn denies<A: Answer>(answer: &A) -> bool {
    let code = answer.status().map(v2::Status::code);
    matches!(code, Some(Code::TooManyRequests | Code::HaNotAvailable))
}

/// What may be said after an attempt that may have been carried out: not that it was not done, which is all that the next
/// process knows of itself.
fn certain<A>(
    response: Response<A>,
    unknown: Option<String>,
    denies: impl Fn(&A) -> bool,
    refuse: impl Fn(Code, String) -> A,
) -> Response<A> {
    match unknown {
        Some(reason) if denies(response.get_ref()) => {
            response.map(|_| refuse(Code::ProxyTimeout, reason))
        }
        _ => response,
    }
}

/// A stream of one answer.
pub(crate) fn one<A: Send + 'static>(answer: A) -> AnswerStream<A> {
    stream::iter([Ok(answer)]).boxed()
}

#[cfg(test)]
mod tests {
    use proto::cluster::{Registration, Replica, TopicRoute};

    use super::*;

    fn table() -> RouteTable {
        let registration = |group: &str, topics: &[&str]| {
            let replica = |broker_id: u64| Replica {
                broker_id,
                client_address: format!("{group}-{broker_id}:1"),
                peer_address: String::new(),
            };
            let topic = |name: &&str| TopicRoute {
                name: (*name).into(),
                queue_count: 1,
                message_type: 0,
                first_queue: 0,
            };
            Arc::new(Registration {
                group: group.into(),
                leader: 2,
                replicas: (1..=4).map(replica).collect(),
                topics: topics.iter().map(topic).collect(),
                ..Default::default()
            })
        };
        RouteTable::new(
            1,
            vec![registration("a", &["t"]), registration("b", &["t", "u"])],
        )
    }

    fn to(topic: &str, group: Option<&str>) -> Target {
        Target::Topic {
            topic: topic.into(),
            group: group.map(str::to_owned),
        }
    }

    /// Catches a call that goes to a group that does not have the topic, or that gives up with its leader.
    #[test]
    fn a_call_goes_to_the_group_that_has_the_topic() {
        let table = table();
        assert_eq!(route(&table, &to("u", None)), ["b-2:1", "b-1:1", "b-3:1"]);
        assert_eq!(route(&table, &to("t", Some("b")))[0], "b-2:1");
        assert_eq!(route(&table, &to("t", Some("gone")))[0], "a-2:1");
        assert_eq!(
            route(&table, &to("u", Some("a")))[0],
            "b-2:1",
            "that group lacks the topic"
        );
    }

    /// Catches an unknown topic being created in two groups, and a heartbeat that depends on one group.
    #[test]
    fn an_unknown_topic_goes_to_one_group_and_any_to_every_leader() {
        let table = table();
        assert_eq!(
            route(&table, &to("unknown", None)),
            ["a-2:1", "a-1:1", "a-3:1"]
        );
        assert_eq!(route(&table, &Target::Any), ["a-2:1", "b-2:1", "a-1:1"]);
        assert_eq!(
            route(&RouteTable::default(), &Target::Any),
            Vec::<String>::new()
        );
    }

    /// Catches a heartbeat, a commit or a message for one broker group that another one takes, because it has queues of the
    /// same numbers and leads just now.
    #[test]
    fn a_call_for_a_group_goes_to_nobody_else() {
        let table = table();
        assert_eq!(route_to(&table, "b"), ["b-2:1", "b-1:1", "b-3:1"]);
        assert_eq!(route_to(&table, "gone"), Vec::<String>::new());
    }

    /// Catches two topics of one name in two namespaces being taken for one, and a call about a group's dead letters that goes
    /// to a broker group which does not have them.
    #[test]
    fn a_namespace_is_part_of_the_name() {
        let target = |namespace: &str, name: &str| {
            Target::topic(Some(&Resource {
                resource_namespace: namespace.into(),
                name: name.into(),
            }))
        };
        assert_eq!(target("", "t"), to("t", None));
        assert_eq!(target("space", "t"), to("space%t", None));
        assert_eq!(target("space", "%DLQ%g"), to("%DLQ%space%g", None));
    }

    /// Catches a message that the dead leader stored and of which the client hears that it surely was not: it would be sent
    /// elsewhere, and be there twice.
    #[test]
    fn nobody_denies_what_another_may_have_done() {
        type Sent = v2::SendMessageResponse;
        let after = |unknown: Option<&str>, code| {
            let mut response = Response::new(Sent::refused(code, "said"));
            set_leader(response.metadata_mut(), "a-1:1");
            let unknown = unknown.map(str::to_owned);
            let response = certain(response, unknown, denies::<Sent>, Sent::refused);
            assert!(response.metadata().contains_key(gateway::LEADER));
            let status = response.into_inner().status.expect("it has one");
            (status.code(), status.message)
        };
        let lost = Some("connection reset");
        for denial in [Code::HaNotAvailable, Code::TooManyRequests] {
            let told = (Code::ProxyTimeout, "connection reset".to_owned());
            assert_eq!(after(lost, denial), told);
            assert_eq!(after(None, denial), (denial, "said".to_owned()));
        }
        for other in [Code::Ok, Code::MessageBodyTooLarge, Code::ProxyTimeout] {
            assert_eq!(after(lost, other), (other, "said".to_owned()));
        }
    }
}
