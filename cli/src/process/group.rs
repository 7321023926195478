//! One broker group of three processes and its name server, on this machine.
//!
//! Writes their configuration files, starts them, finds out who leads, and gives the tests and the
//! demo a hand on each process. What a process does inside is none of its business: it knows them
//! by their process ids and by what they answer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use host::network::ClusterSecret;
use proto::cluster::BrokerStatusResponse;
use raftmq_client::Administration;
use tokio::time::Instant;

use super::admin;
use super::certificate::Certificate;
use super::child::{Child, Ending};
use super::ports::free_ports;
use crate::failure::Failure;
use crate::files;

/// Time that a process has to shut down cleanly before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two rounds of asking every broker who leads.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of each log that a message quotes.
const LAST_WORDS_LINES: usize = 8;

/// Where one broker of the group listens.
#[derive(Clone, Copy, Debug)]
pub struct BrokerPorts {
    /// For clients.
    pub client: u16,
    /// For the other replicas.
    pub peer: u16,
    /// For operators.
    pub admin: u16,
}

impl BrokerPorts {
    /// Three ports of a list: for clients, for replicas, for operators.
    pub fn of(ports: &[u16; 3]) -> BrokerPorts {
        let [client, peer, admin] = *ports;
        BrokerPorts {
            client,
            peer,
            admin,
        }
    }
}

/// What a group looks like, before it runs.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// This binary.
    pub program: PathBuf,
    /// Everything the group writes is below this directory.
    pub directory: PathBuf,
    /// Replicas of another cluster are refused.
    pub cluster_id: String,
    /// Name of the broker group.
    pub group: String,
    /// Where the name server listens.
    pub name_server_port: u16,
    /// The brokers by id.
    pub brokers: BTreeMap<u64, BrokerPorts>,
    /// For clients that speak TLS.
    pub certificate: Option<Certificate>,
    /// Keys laid over every broker's configuration.
    pub settings: toml::Table,
    /// Environment variables of single brokers.
    pub environment: BTreeMap<u64, Vec<(String, String)>>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// The leader.
    pub broker_id: u64,
    /// Its Raft term.
    pub term: u64,
}

/// One process of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The name server.
    NameServer,
    /// The broker of this id.
    Broker(u64),
}

impl Member {
    /// What its files are called.
    pub fn file_name(self) -> String {
        match self {
            Member::NameServer => "nameserver".to_owned(),
            Member::Broker(id) => format!("broker-{id}"),
        }
    }

    /// The command that runs it.
    fn role(self) -> &'static str {
        match self {
            Member::NameServer => "nameserver",
            Member::Broker(_) => "broker",
        }
    }
}

impl Display for Member {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Member::NameServer => write!(formatter, "name server"),
            Member::Broker(id) => write!(formatter, "broker {id}"),
        }
    }
}

/// The running processes of one plan.
pub struct Group {
    plan: GroupPlan,
    secret: ClusterSecret,
    processes: BTreeMap<Member, Child>,
}

impl GroupPlan {
    /// Three brokers and a name server on free ports, data below `directory`.
    ///
    /// # Errors
    ///
    /// If there are no free ports.
    pub fn on_free_ports(
        program: &Path,
        directory: &Path,
        group: &str,
    ) -> Result<GroupPlan, Failure> {
        let ports = free_ports(10).map_err(|error| Failure::during("looking for ports", error))?;
        let brokers = (1..=3_u64)
            .zip(ports[1..].as_chunks().0)
            .map(|(id, ports)| (id, BrokerPorts::of(ports)))
            .collect();
        Ok(GroupPlan {
            program: program.to_owned(),
            directory: directory.to_owned(),
            cluster_id: group.to_owned(),
            group: group.to_owned(),
            name_server_port: ports[0],
            brokers,
            certificate: None,
            settings: toml::Table::new(),
            environment: BTreeMap::new(),
        })
    }

    /// Serves TLS too, by this certificate.
    #[must_use]
    pub fn with_certificate(mut self, certificate: Certificate) -> GroupPlan {
        self.certificate = Some(certificate);
        self
    }

    /// Sets one key of every broker's configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<toml::Value>) -> GroupPlan {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Where clients reach the name server.
    pub fn name_server_address(&self) -> String {
        format!("127.0.0.1:{}", self.name_server_port)
    }

    /// Where clients reach broker `id`.
    pub fn client_address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.brokers[&id].client)
    }

    /// Where replicas reach broker `id`.
    pub fn peer_address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.brokers[&id].peer)
    }

    /// Where operators reach broker `id`.
    pub fn admin_address(&self, id: u64) -> String {
        format!("127.0.0.1:{}", self.brokers[&id].admin)
    }

    /// Where operators reach the brokers, any of which knows all.
    pub fn admin_addresses(&self) -> Vec<String> {
        let ids = self.brokers.keys();
        ids.map(|id| self.admin_address(*id)).collect()
    }

    /// What a client of this group needs to administer it.
    ///
    /// # Errors
    ///
    /// If there is no secret yet.
    pub fn administration(&self) -> Result<Administration, Failure> {
        let secret = ClusterSecret::load(&self.secret_file())
            .map_err(|error| Failure::Operation(error.to_string()))?;
        Ok(Administration::new(secret).endpoints(self.admin_addresses()))
    }

    /// Where broker `id` keeps its data.
    pub fn broker_directory(&self, id: u64) -> PathBuf {
        self.directory.join(format!("broker-{id}"))
    }

    /// Path of the secret that all of them share.
    pub fn secret_file(&self) -> PathBuf {
        self.directory.join("secret")
    }

    /// Every address that serves the messaging service: the name server first.
    pub fn seeds(&self) -> Vec<String> {
        let brokers = self.brokers.keys().map(|id| self.client_address(*id));
        [self.name_server_address()]
            .into_iter()
            .chain(brokers)
            .collect()
    }

    /// Every process, the name server first.
    pub fn members(&self) -> Vec<Member> {
        let brokers = self.brokers.keys().map(|id| Member::Broker(*id));
        [Member::NameServer].into_iter().chain(brokers).collect()
    }

    /// Path of the file that a process's output goes to.
    pub fn log(&self, member: Member) -> PathBuf {
        self.directory.join(format!("{}.log", member.file_name()))
    }

    /// Path of a process's configuration file.
    pub fn config(&self, member: Member) -> PathBuf {
        self.directory.join(format!("{}.toml", member.file_name()))
    }

    /// Broker `id`'s configuration.
    pub fn broker_settings(&self, id: u64) -> toml::Table {
        let members = self.brokers.keys().map(|member| {
            toml::Value::Table(toml::Table::from_iter([
                ("broker_id".to_owned(), number(*member)),
                (
                    "client_address".to_owned(),
                    self.client_address(*member).into(),
                ),
                ("peer_address".to_owned(), self.peer_address(*member).into()),
            ]))
        });
        let mut table = toml::Table::from_iter([
            ("cluster_id".to_owned(), self.cluster_id.clone().into()),
            ("group".to_owned(), self.group.clone().into()),
            ("broker_id".to_owned(), number(id)),
            (
                "data_dir".to_owned(),
                self.broker_directory(id).display().to_string().into(),
            ),
            ("listen".to_owned(), self.client_address(id).into()),
            ("advertise".to_owned(), self.client_address(id).into()),
            ("peer_listen".to_owned(), self.peer_address(id).into()),
            ("peer_advertise".to_owned(), self.peer_address(id).into()),
            ("admin_listen".to_owned(), self.admin_address(id).into()),
            (
                "secret_file".to_owned(),
                self.secret_file().display().to_string().into(),
            ),
            ("members".to_owned(), toml::Value::Array(members.collect())),
            (
                "name_servers".to_owned(),
                vec![self.name_server_address()].into(),
            ),
        ]);
        table.extend(self.tls_settings());
        table.extend(self.settings.clone());
        table
    }

    /// The name server's configuration.
    pub fn name_server_settings(&self) -> toml::Table {
        let mut table = toml::Table::from_iter([
            ("cluster_id".to_owned(), self.cluster_id.clone().into()),
            ("listen".to_owned(), self.name_server_address().into()),
            ("advertise".to_owned(), self.name_server_address().into()),
            (
                "secret_file".to_owned(),
                self.secret_file().display().to_string().into(),
            ),
        ]);
        table.extend(self.tls_settings());
        table
    }

    fn tls_settings(&self) -> toml::Table {
        let files = self.certificate.iter().flat_map(|certificate| {
            [
                ("tls_certificate", certificate.certificate()),
                ("tls_key", certificate.key()),
            ]
        });
        let text = |path: &Path| toml::Value::from(path.display().to_string());
        files
            .map(|(key, path)| (key.to_owned(), text(path)))
            .collect()
    }
}

impl Group {
    /// Writes the configuration files and starts nothing yet.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written.
    pub fn prepare(plan: GroupPlan) -> Result<Group, Failure> {
        files::create_directories(&plan.directory).map_err(|error| {
            Failure::during(format!("creating {}", plan.directory.display()), error)
        })?;
        let secret = plan.secret_file();
        let failed = |error| Failure::during(format!("making {}", secret.display()), error);
        ClusterSecret::create(&secret).map_err(failed)?;
        let secret = ClusterSecret::load(&secret).map_err(failed)?;
        for member in plan.members() {
            let settings = match member {
                Member::NameServer => plan.name_server_settings(),
                Member::Broker(id) => plan.broker_settings(id),
            };
            write_settings(&plan.config(member), &settings)?;
        }
        Ok(Group {
            plan,
            secret,
            processes: BTreeMap::new(),
        })
    }

    /// Starts the name server and every broker.
    ///
    /// # Errors
    ///
    /// If a process cannot be started.
    pub fn start(plan: GroupPlan) -> Result<Group, Failure> {
        let mut group = Group::prepare(plan)?;
        for member in group.plan.members() {
            group.start_member(member)?;
        }
        Ok(group)
    }

    /// Starts one process, also again.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_member(&mut self, member: Member) -> Result<(), Failure> {
        let arguments: [OsString; 4] = [
            member.role().into(),
            "--config".into(),
            self.plan.config(member).into(),
            "--until-stdin-closes".into(),
        ];
        let environment = match member {
            Member::NameServer => &[],
            Member::Broker(id) => self
                .plan
                .environment
                .get(&id)
                .map_or(&[] as &[_], Vec::as_slice),
        };
        let log = self.plan.log(member);
        let name = member.to_string();
        let child = Child::start(&name, &self.plan.program, &arguments, environment, &log)
            .map_err(|error| Failure::during(format!("starting {name}"), error))?;
        self.processes.insert(member, child);
        Ok(())
    }

    /// Starts broker `id`, also again.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_broker(&mut self, id: u64) -> Result<(), Failure> {
        self.start_member(Member::Broker(id))
    }

    /// What it was started from.
    pub fn plan(&self) -> &GroupPlan {
        &self.plan
    }

    /// What the next start of a broker is made from.
    pub fn plan_mut(&mut self) -> &mut GroupPlan {
        &mut self.plan
    }

    /// Every broker id, running or not.
    pub fn ids(&self) -> Vec<u64> {
        self.plan.brokers.keys().copied().collect()
    }

    /// One process.
    ///
    /// # Panics
    ///
    /// If it was never started.
    pub fn member(&mut self, member: Member) -> &mut Child {
        self.processes
            .get_mut(&member)
            .expect("a process is started before it is asked for")
    }

    /// Broker `id`'s process.
    ///
    /// # Panics
    ///
    /// If it was never started.
    pub fn broker(&mut self, id: u64) -> &mut Child {
        self.member(Member::Broker(id))
    }

    /// The processes that have ended, and how.
    pub fn ended(&mut self) -> Vec<(Member, ExitStatus)> {
        let processes = self.processes.iter_mut();
        processes
            .filter_map(|(member, child)| Some((*member, child.ended()?)))
            .collect()
    }

    /// What broker `id` says of itself; None if it does not answer soon.
    pub async fn status(&self, id: u64) -> Option<BrokerStatusResponse> {
        admin::status(&self.plan.admin_address(id), &self.secret).await
    }

    /// The broker that says of itself that it leads and serves, in the highest term.
    pub async fn leader(&self) -> Option<Led> {
        let answers = futures::future::join_all(self.ids().into_iter().map(|id| self.status(id)));
        let leaders = answers
            .await
            .into_iter()
            .flatten()
            .filter(|status| status.serving);
        leaders
            .map(|status| Led {
                broker_id: status.broker_id,
                term: status.term,
            })
            .max_by_key(|led| led.term)
    }

    /// Waits until one broker leads.
    ///
    /// # Errors
    ///
    /// If none does within `patience`; the message quotes the ends of their logs.
    pub async fn wait_for_leader(&self, patience: Duration) -> Result<Led, Failure> {
        self.wait_for_leader_after(0, patience).await
    }

    /// Waits until one broker leads in a term above `term`.
    ///
    /// # Errors
    ///
    /// If none does within `patience`.
    pub async fn wait_for_leader_after(
        &self,
        term: u64,
        patience: Duration,
    ) -> Result<Led, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(led) = self.leader().await.filter(|led| led.term > term) {
                return Ok(led);
            }
            if Instant::now() > deadline {
                let seconds = patience.as_secs_f32();
                let words = self.last_words();
                return Err(Failure::Operation(format!(
                    "no leader within {seconds} s\n{words}"
                )));
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// The ends of all logs, for a message about what went wrong.
    pub fn last_words(&self) -> String {
        let words = self.processes.values().map(|child| {
            format!(
                "--- {}\n{}",
                child.name(),
                child.last_words(LAST_WORDS_LINES)
            )
        });
        words.collect::<Vec<_>>().join("\n")
    }

    /// Ends everything: brokers first, the name server last. True if each ended cleanly.
    pub async fn end(&mut self) -> bool {
        let (name_servers, brokers): (Vec<_>, Vec<_>) = self
            .processes
            .iter_mut()
            .partition(|(member, _)| **member == Member::NameServer);
        let mut clean = true;
        for together in [brokers, name_servers] {
            let endings = together
                .into_iter()
                .map(|(_, child)| child.end(END_PATIENCE));
            let endings = futures::future::join_all(endings).await;
            clean &= endings.iter().all(|ending| *ending == Ending::Clean);
        }
        clean
    }
}

fn number(value: u64) -> toml::Value {
    toml::Value::Integer(i64::try_from(value).expect("ids and ports are small"))
}

fn write_settings(path: &Path, settings: &toml::Table) -> Result<(), Failure> {
    let text = toml::to_string(settings)
        .map_err(|error| Failure::during(format!("writing {}", path.display()), error))?;
    files::write_text(path, &text)
        .map_err(|error| Failure::during(format!("writing {}", path.display()), error))
}
