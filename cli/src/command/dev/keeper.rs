//! Watches the processes of `raftmq dev`: says what happens, starts again what died.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;
use crate::output::Output;
use crate::process::{Group, Led, Member};
use crate::terminal::{Colour, paint};

/// Pause before a process is started again: doubles with each death in a row.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(500);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A process that lived this long starts with the shortest pause again.
const STEADY: Duration = Duration::from_secs(20);
/// No leader for this long is worth a line.
const LEADERLESS_PATIENCE: Duration = Duration::from_secs(1);

struct Restart {
    /// When this started it again; None before the first time.
    started: Option<Instant>,
    pause: Duration,
    due: Option<Instant>,
}

/// What has been seen, and what is to be done about it.
pub(crate) struct Keeper {
    output: Output,
    led: Led,
    leaderless_since: Option<Instant>,
    leaderless_said: bool,
    restarts: BTreeMap<Member, Restart>,
}

impl Keeper {
    /// Watches a group that `led` leads.
    pub(crate) fn new(led: Led, output: Output) -> Keeper {
        Keeper {
            output,
            led,
            leaderless_since: None,
            leaderless_said: false,
            restarts: BTreeMap::new(),
        }
    }

    /// One look at everything.
    ///
    /// # Errors
    ///
    /// If a process cannot be started again at all.
    pub(crate) async fn look(&mut self, group: &mut Group) -> Result<(), Failure> {
        for (member, status) in group.ended() {
            self.care_for(group, member, &status.to_string())?;
        }
        self.look_for_leader(group).await;
        Ok(())
    }

    fn care_for(&mut self, group: &mut Group, member: Member, how: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let restart = self.restarts.entry(member).or_insert_with(|| Restart {
            started: None,
            pause: RESTART_PAUSE_MIN,
            due: None,
        });
        match restart.due {
            None => {
                let steady = restart
                    .started
                    .is_none_or(|started| started.elapsed() >= STEADY);
                restart.pause = if steady {
                    RESTART_PAUSE_MIN
                } else {
                    restart.pause
                };
                restart.due = Some(now + restart.pause);
                let seconds = restart.pause.as_secs_f32();
                let log = group.member(member).log().display().to_string();
                let what = paint(Colour::Bad, format_args!("{member} ended ({how})"));
                self.output.tell(format_args!(
                    "{what}; starting it again in {seconds} s; its log: {log}"
                ));
            }
            Some(due) if now >= due => {
                group.start_member(member)?;
                let pid = group.member(member).pid().unwrap_or(0);
                restart.started = Some(now);
                restart.due = None;
                restart.pause = (restart.pause * 2).min(RESTART_PAUSE_MAX);
                self.output
                    .tell(format_args!("{member} runs again, pid {pid}"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    async fn look_for_leader(&mut self, group: &Group) {
        match group.leader().await {
            Some(led) if led != self.led => {
                let Led { broker_id, term } = led;
                let before = self.led.broker_id;
                let again = if before == broker_id { "again " } else { "" };
                let what = format!("broker {broker_id} leads {again}in term {term}");
                let was = if before == broker_id {
                    String::new()
                } else {
                    format!(" (it was broker {before})")
                };
                self.output
                    .tell(format_args!("{}{was}", paint(Colour::Good, what)));
                self.led = led;
                self.leaderless_since = None;
                self.leaderless_said = false;
            }
            Some(_) => {
                if self.leaderless_said {
                    self.output
                        .tell(format_args!("broker {} still leads", self.led.broker_id));
                }
                self.leaderless_since = None;
                self.leaderless_said = false;
            }
            None => {
                let since = *self.leaderless_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LEADERLESS_PATIENCE && !self.leaderless_said {
                    self.leaderless_said = true;
                    self.output.tell(paint(
                        Colour::Bad,
                        "no broker leads: sends wait until one does",
                    ));
                }
            }
        }
    }
}
