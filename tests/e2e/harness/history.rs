//! What every client saw, in one order.
//!
//! In: events of all devices of a run. Out: a list whose order is real time: an event recorded before another happened
//! before it ended. Always: an invocation is recorded before its command can leave the device, and an answer after it came.

use im_proto::client::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

/// Names one command of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub u64);

/// One installation of an app.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub user: String,
    pub device: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A command was handed to the client.
    Invoked { op: Op, device: Device, log: String, client_id: String, what: What },
    /// It was acknowledged. A command may be acknowledged more than once (a resend on purpose).
    Stored { op: Op, epoch: u64, seq: u64, server_time_ms: i64 },
    /// It was refused for good.
    Refused { op: Op },
    /// The device's user has read up to here, says the server.
    ReadMarked { device: Device, log: String, seq: u64 },
    /// The app was shown this entry.
    Applied { device: Device, log: String, entry: Entry },
}

/// What a command means to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A message with these body bytes.
    Message(Vec<u8>),
    /// An entry of another kind: a group command.
    Membership,
    /// No entry of the conversation's: mark read.
    Cursor,
}

/// Shared by all clients of a run.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Recorded>>);

#[derive(Default)]
pub struct Recorded {
    pub events: Vec<Event>,
    ops: u64,
}

impl Recorded {
    /// Records an invocation while the caller still holds the history: two pipelined commands of a device are handed to
    /// its client in the order of their records.
    pub fn invoked(&mut self, device: &Device, log: &str, client_id: &str, what: What) -> Op {
        self.ops += 1;
        let op = Op(self.ops);
        let (device, log, client_id) = (device.clone(), log.to_owned(), client_id.to_owned());
        self.events.push(Event::Invoked { op, device, log, client_id, what });
        op
    }
}

impl History {
    pub fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap()
    }

    pub fn record(&self, event: Event) {
        self.lock().events.push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }
}
