//! A client's telemetry stream, kept alive across changes of the leader behind it.
//!
//! Some official clients send their settings again only minutes after a stream broke, or never, or wait without a
//! deadline for the first answer. So the client's stream stays open while the stream to a leader is replaced, and the last
//! settings are repeated to the new one. Holds nothing else about the client.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use gateway::{Answer, AnswerStream, Forwarder, is_unreachable};
use proto::v2::{Code, TelemetryCommand, telemetry_command::Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};
use tracing::debug;

use crate::relay::{NO_LEADER, Relay, Target, route};

/// How long a client waits for some leader before its stream is ended with a status. The client then starts anew.
pub const LEADER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Pause between two attempts to reach a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A client's commands that are on their way to the leader. One that outruns this loses its stream.
const COMMANDS_MAX: usize = 64;

/// One client's stream.
pub(crate) struct Session {
    relay: Relay,
    metadata: MetadataMap,
    commands: Streaming<TelemetryCommand>,
    /// What the client last said about itself.
    settings: Option<TelemetryCommand>,
    leader: Option<Leader>,
    ended: bool,
}

struct Leader {
    commands: mpsc::Sender<TelemetryCommand>,
    answers: AnswerStream<TelemetryCommand>,
}

enum Event {
    Command(Option<TelemetryCommand>),
    Answer(Option<Result<TelemetryCommand, Status>>),
}

impl Session {
    /// What the client gets for its `commands`.
    pub(crate) fn start(
        relay: Relay,
        commands: Request<Streaming<TelemetryCommand>>,
    ) -> AnswerStream<TelemetryCommand> {
        let (metadata, _, commands) = commands.into_parts();
        let session = Session {
            relay,
            metadata,
            commands,
            settings: None,
            leader: None,
            ended: false,
        };
        stream::unfold(session, |mut session| async move {
            let answer = session.next().await?;
            Some((answer, session))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<TelemetryCommand, Status>> {
        while !self.ended {
            match self.event().await {
                Event::Command(None) => self.ended = true,
                Event::Command(Some(command)) => {
                    if let Some(refusal) = self.pass(command).await {
                        return Some(refusal);
                    }
                }
                Event::Answer(Some(Ok(answer))) => return Some(Ok(answer)),
                Event::Answer(Some(Err(status))) if !is_unreachable(&status) => {
                    self.ended = true;
                    return Some(Err(status));
                }
                Event::Answer(_) => {
                    self.leader = None;
                    if let Some(refusal) = self.repeat_settings().await {
                        return Some(refusal);
                    }
                }
            }
        }
        None
    }

    async fn event(&mut self) -> Event {
        let Some(leader) = &mut self.leader else {
            tokio::select! {
                biased;
                () = self.relay.shutdown.wait() => return Event::Command(None),
                command = self.commands.message() => return Event::Command(command.ok().flatten()),
            }
        };
        tokio::select! {
            biased;
            () = self.relay.shutdown.wait() => Event::Command(None),
            answer = leader.answers.next() => Event::Answer(answer),
            command = self.commands.message() => Event::Command(command.ok().flatten()),
        }
    }

    /// Passes a command on. Returns what ends the session, if something does.
    async fn pass(
        &mut self,
        command: TelemetryCommand,
    ) -> Option<Result<TelemetryCommand, Status>> {
        if matches!(command.command, Some(Command::Settings(_))) {
            self.settings = Some(command.clone());
        }
        let Some(leader) = &self.leader else {
            return self.open(command).await;
        };
        if leader.commands.try_send(command.clone()).is_ok() {
            return None;
        }
        // The stream is gone, though its end was not seen yet; or the leader does not read.
        self.leader = None;
        self.open(command).await
    }

    async fn repeat_settings(&mut self) -> Option<Result<TelemetryCommand, Status>> {
        match self.settings.clone() {
            Some(settings) => {
                tokio::time::sleep(RETRY_PAUSE).await;
                self.open(settings).await
            }
            None => None,
        }
    }

    /// Opens a stream to a leader, beginning with `first`. Returns what ends the session if none can be reached in time.
    async fn open(&mut self, first: TelemetryCommand) -> Option<Result<TelemetryCommand, Status>> {
        let end = Instant::now() + LEADER_WAIT_MAX;
        let mut reason = NO_LEADER.to_owned();
        loop {
            self.relay.directory.filled().await;
            for address in route(&self.relay.directory.table(), &Target::Any) {
                let forwarder = &self.relay.forwarder;
                match connect(forwarder, &address, &self.metadata, first.clone()).await {
                    Ok(leader) => {
                        self.leader = Some(leader);
                        return None;
                    }
                    Err(status) if is_unreachable(&status) => {
                        debug!(address, %status, "telemetry cannot be forwarded");
                        reason = status.message().to_owned();
                    }
                    Err(status) => {
                        self.ended = true;
                        return Some(Err(status));
                    }
                }
            }
            if Instant::now() + RETRY_PAUSE >= end {
                self.ended = true;
                return Some(Ok(TelemetryCommand::refused(Code::HaNotAvailable, reason)));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

async fn connect(
    forwarder: &Forwarder,
    address: &str,
    metadata: &MetadataMap,
    first: TelemetryCommand,
) -> Result<Leader, Status> {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    if sender.try_send(first).is_err() {
        return Err(Status::internal("a new queue has no room for one command"));
    }
    let mut request = Request::new(received(receiver));
    *request.metadata_mut() = metadata.clone();
    let answers = forwarder.telemetry(address, request).await?.into_inner();
    Ok(Leader {
        commands: sender,
        answers,
    })
}

fn received(
    receiver: mpsc::Receiver<TelemetryCommand>,
) -> impl Stream<Item = Result<TelemetryCommand, Status>> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move {
        let command = receiver.recv().await?;
        Some((Ok(command), receiver))
    })
}
