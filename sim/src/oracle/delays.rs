//! How long clients waited, in worlds where not much goes wrong.

use super::Model;
use crate::history::Event;
use crate::violation::Violation;

const NANOS_PER_MS: u64 = 1_000_000;

impl Model<'_> {
    /// No send takes longer than the world says, from when it was handed over to when its producer was told.
    pub(super) fn sends_go_on(&self) -> Result<(), Violation> {
        let within = self.records.iter().find_map(|record| match record.event {
            Event::SendsWithin { ms } => Some(ms),
            _ => None,
        });
        let Some(within) = within else {
            return Ok(());
        };
        for (value, send) in &self.sends {
            let Some(returned) = send.returned else {
                continue;
            };
            let took = self.records[returned].at - self.records[send.called].at;
            if took > within * NANOS_PER_MS {
                let took = took / NANOS_PER_MS;
                let detail = format!("send {value:x} took {took} ms, and {within} ms are promised");
                let proof = self.show([send.called, returned]);
                return Err(Violation::new("sends-go-on", detail).proved_by(proof));
            }
        }
        Ok(())
    }
}
