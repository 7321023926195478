//! A machine with clients: starts its producers and consumers, and starts those anew that ended.

use std::sync::Arc;

use super::{Clients, consumer, lives, producer, push_consumer, retrier};
use crate::machine::Machine;

/// Everything that the machine does until its clients are told to stop. Its process may be killed at any
/// moment, and then this begins anew.
pub async fn run_client(clients: Arc<Clients>, number: u8) {
    let machine = Machine::Client(number);
    let host = clients.world.client_host(machine, Arc::default());
    let mut tasks = Vec::new();
    for plan in &clients.plan.producers {
        if plan.machine == number {
            let work = producer::run(clients.clone(), machine, host.clone(), plan.clone());
            tasks.push(tokio::spawn(work));
        }
    }
    for plan in &clients.plan.consumers {
        if plan.machine == number {
            let work = consumer::run(clients.clone(), machine, host.clone(), plan.clone());
            tasks.push(tokio::spawn(work));
        }
    }
    for plan in &clients.plan.retriers {
        if plan.machine == number {
            let work = retrier::run(clients.clone(), machine, host.clone(), plan.clone());
            tasks.push(tokio::spawn(work));
        }
    }
    for plan in &clients.plan.push_consumers {
        if plan.machine == number {
            let work = push_consumer::run(clients.clone(), machine, host.clone(), plan.clone());
            tasks.push(tokio::spawn(work));
        }
    }
    for plan in &clients.plan.lives {
        if plan.machine == number {
            let work = lives::run(clients.clone(), machine, host.clone(), plan.clone());
            tasks.push(tokio::spawn(work));
        }
    }
    for task in tasks {
        task.await.expect("clients do not panic");
    }
    // A process that ended would look like one that crashed.
    std::future::pending::<()>().await;
}
