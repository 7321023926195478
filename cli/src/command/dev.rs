//! `raftmq dev`: a whole system on this machine, in the foreground.
//!
//! Every server is a process of its own, so that killing one is the real thing. Ends them all when it
//! is asked to stop; starts again what dies by itself. Holds no data: a second run finds the first's.

mod keeper;
mod ports;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::seeds::SECRET_DEFAULT;
use crate::failure::Failure;
use crate::output::Output;
use crate::process::{Certificate, Group, GroupPlan, Led, Member};
use crate::terminal::{Colour, paint, say};
use crate::{files, signals};
use keeper::Keeper;

/// Longest wait for the first leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(30);
/// How often the processes and the leader are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Replicas of other clusters are refused; every `raftmq dev` is the same one.
const CLUSTER_ID: &str = "dev";

/// Flags of `raftmq dev`.
#[derive(Args, Debug)]
pub(crate) struct DevArguments {
    /// Where everything is kept: data, configurations, logs
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "data",
        env = "RAFTMQ_DATA_DIR"
    )]
    data: PathBuf,
    /// First of ten ports in a row, in place of 9876, 8081 to 8083, 9081 to 9083 and 7081 to 7083
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    #[command(flatten)]
    output: Output,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(arguments: DevArguments) -> Result<(), Failure> {
    let directory = &arguments.data;
    let failed = |error| Failure::during(format!("using {}", directory.display()), error);
    files::create_directories(directory).map_err(failed)?;
    let _lock = host::Host::real()
        .disk
        .lock(&directory.join("dev.lock"))
        .map_err(|error| {
            let hint = "is another `raftmq dev` running there?";
            Failure::Operation(format!(
                "{} is in use ({error}): {hint}",
                directory.display()
            ))
        })?;
    let mut stop = Box::pin(signals::stop_requested());
    let mut group = Group::start(plan(&arguments)?)?;
    let led = tokio::select! {
        biased;
        reason = &mut stop => {
            return end(&mut group, directory, reason?, arguments.output).await;
        }
        led = first_leader(&mut group) => led?,
    };
    let output = arguments.output;
    if output.json {
        say(as_json(&mut group, &led));
    } else {
        greet(&mut group, &led, directory);
    }
    let mut keeper = Keeper::new(led, output);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            biased;
            reason = &mut stop => {
                return end(&mut group, directory, reason?, arguments.output).await;
            }
            _ = look.tick() => keeper.look(&mut group).await?,
        }
    }
}

fn plan(arguments: &DevArguments) -> Result<GroupPlan, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::during("finding this program", error))?;
    let (name_server_port, brokers) = ports::choose(&arguments.data, arguments.base_port)?;
    let plan = GroupPlan {
        program,
        directory: arguments.data.clone(),
        cluster_id: CLUSTER_ID.to_owned(),
        group: "broker-a".to_owned(),
        name_server_port,
        brokers,
        certificate: Some(Certificate::for_this_machine(&arguments.data)?),
        settings: toml::Table::new(),
        environment: Default::default(),
    };
    Ok(plan.with("auto_create_topics", true))
}

/// Waits for the first leader, unless a process ends before: then that is what went wrong.
async fn first_leader(group: &mut Group) -> Result<Led, Failure> {
    let deadline = Instant::now() + LEADER_PATIENCE;
    loop {
        if let Some((member, status)) = group.ended().into_iter().next() {
            let child = group.member(member);
            let log = child.log().display().to_string();
            let words = child.last_words(3);
            return Err(Failure::Operation(format!(
                "{member} ended ({status}), see {log}\n{words}"
            )));
        }
        match group.wait_for_leader(LOOK_INTERVAL).await {
            Ok(led) => return Ok(led),
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Err(_) => {}
        }
    }
}

/// Where everything is, once a leader is known.
fn as_json(group: &mut Group, led: &Led) -> Value {
    let plan = group.plan().clone();
    let members: Vec<Value> = plan
        .members()
        .into_iter()
        .map(|member| {
            let pid = group.member(member).pid();
            let address = address(&plan, member);
            let leads = member == Member::Broker(led.broker_id);
            json!({ "name": member.to_string(), "address": address, "pid": pid, "leads": leads })
        })
        .collect();
    json!({
        "directory": plan.directory,
        "seeds": plan.seeds(),
        "admin": plan.admin_addresses(),
        "secret_file": plan.secret_file(),
        "processes": members,
    })
}

fn address(plan: &GroupPlan, member: Member) -> String {
    match member {
        Member::NameServer => plan.name_server_address(),
        Member::Broker(id) => plan.client_address(id),
    }
}

fn greet(group: &mut Group, led: &Led, directory: &Path) {
    let plan = group.plan().clone();
    say(format_args!(
        "One name server and three brokers; data and logs under {}",
        directory.display()
    ));
    for member in plan.members() {
        let address = address(&plan, member);
        let pid = group.member(member).pid().unwrap_or(0);
        let leads = if member == Member::Broker(led.broker_id) {
            "  leads"
        } else {
            ""
        };
        let leads = paint(Colour::Good, leads);
        say(format_args!(
            "  {:<12} {address:<16} pid {pid}{leads}",
            member.to_string()
        ));
    }
    if let Some(certificate) = &plan.certificate {
        let trusted = certificate.certificate().display();
        say(format_args!(
            "TLS on the same ports: add --tls-ca {trusted}"
        ));
    }
    let program = shown_program(&plan.program);
    let (seeds, admin) = (seeds_flag(&plan), admin_flags(&plan));
    let line = |words: &str| format!("{program} {words}{seeds}");
    let operators = |words: &str| format!("{program} {words}{seeds}{admin}");
    let lines = [
        (
            "a topic with four queues",
            operators("topic create greetings --queues 4"),
        ),
        (
            "a message",
            format!("echo 'hello, world' | {}", line("produce greetings")),
        ),
        (
            "read it, and wait for more",
            line("consume greetings --group readers --from earliest --follow"),
        ),
        ("who leads, who follows", operators("cluster status")),
        (
            "lose the leader while you watch",
            format!("kill -9 {}", leader_pid(group, led)),
        ),
    ];
    say("\nTry next, in another terminal:");
    for (what, line) in lines {
        say(format_args!(
            "  {}\n    {line}",
            paint(Colour::Faint, format_args!("# {what}"))
        ));
    }
    say("\nCtrl-C stops everything; the data stays.\n");
}

fn leader_pid(group: &mut Group, led: &Led) -> u32 {
    group.broker(led.broker_id).pid().unwrap_or(0)
}

/// Needed only where the defaults would not find the group.
fn seeds_flag(plan: &GroupPlan) -> String {
    if plan.name_server_port == ports::NAME_SERVER {
        String::new()
    } else {
        format!(" --seeds {}", plan.name_server_address())
    }
}

/// The same for what operators need beside: where they are served, and the secret.
fn admin_flags(plan: &GroupPlan) -> String {
    let mut flags = String::new();
    if plan.name_server_port != ports::NAME_SERVER {
        flags += &format!(" --admin {}", plan.admin_addresses().join(","));
    }
    if plan.secret_file() != Path::new(SECRET_DEFAULT) {
        flags += &format!(" --secret-file {}", plan.secret_file().display());
    }
    flags
}

/// The program as it can be typed here: without its path if the shell finds it, else relative if below.
fn shown_program(program: &Path) -> String {
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("raftmq") == *program)
    });
    if on_path {
        return "raftmq".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    program
        .strip_prefix(&here)
        .unwrap_or(program)
        .display()
        .to_string()
}

async fn end(
    group: &mut Group,
    directory: &Path,
    reason: &str,
    output: Output,
) -> Result<(), Failure> {
    output.tell(format_args!("\n{reason}: stopping"));
    if group.end().await {
        output.tell(format_args!(
            "Everything has stopped; the data is in {}",
            directory.display()
        ));
        Ok(())
    } else {
        let words = group.last_words();
        Err(Failure::Operation(format!(
            "not every process ended cleanly\n{words}"
        )))
    }
}
