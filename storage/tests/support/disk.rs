//! A disk that forgets, tears, fails and flips on demand.
//!
//! In: what the engine writes. Out: images of what a machine could find after a power cut at any moment. Always: what
//! was synced is in every later image; of the rest any subset is, writes torn at sectors; a length change is whole or
//! absent, and bytes beyond the length are gone.

use im_storage::embedded::Witness;
use rand::{RngExt, rngs::SmallRng};
use std::{
    io::{self, ErrorKind},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

const SECTOR_BYTES: u64 = 512;

#[derive(Debug, Clone)]
pub enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// What happened, with what the witness held at that moment.
#[derive(Debug, Clone)]
pub struct Event {
    pub op: Op,
    pub witness: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The n-th sync from now answers EIO, and so do all later ones.
    Sync(u64),
    /// No space beyond this length.
    Full(u64),
}

#[derive(Debug)]
struct State {
    image: Vec<u8>,
    events: Vec<Event>,
    record: bool,
    fault: Option<Fault>,
    witness: Witness,
}

/// Clones share the disk.
#[derive(Debug, Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    stall: Arc<Stall>,
}

/// While it is on, a sync does not return.
#[derive(Debug, Default)]
struct Stall {
    on: Mutex<bool>,
    over: Condvar,
}

impl Disk {
    pub fn new() -> Self {
        Self::with_image(Vec::new(), 0)
    }

    pub fn with_image(image: Vec<u8>, witness: u64) -> Self {
        let memory = Witness::in_memory();
        if witness > 0 {
            memory.note(witness).unwrap();
        }
        let state = State { image, events: Vec::new(), record: false, fault: None, witness: memory };
        Self { state: Arc::new(Mutex::new(state)), stall: Arc::default() }
    }

    /// Keeps every event from now on.
    pub fn recording(self) -> Self {
        self.state().record = true;
        self
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Syncs hang from now on, or those that hang go on.
    pub fn stall(&self, on: bool) {
        *self.stall.on.lock().unwrap() = on;
        self.stall.over.notify_all();
    }

    /// Changes bytes behind the engine's back.
    pub fn damage(&self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.state().image);
    }

    pub fn witness(&self) -> Witness {
        self.state().witness.clone()
    }

    pub fn image(&self) -> Vec<u8> {
        self.state().image.clone()
    }

    /// How many events there were: a moment of the run.
    pub fn moment(&self) -> usize {
        self.state().events.len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn note(&mut self, op: impl FnOnce() -> Op) {
        if self.record {
            let witness = self.witness.last().unwrap();
            self.events.push(Event { op: op(), witness });
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let bytes = state.image.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if matches!(state.fault, Some(Fault::Full(max)) if len > max) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.image.resize(len as usize, 0);
        state.note(|| Op::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.stall.over.wait_while(self.stall.on.lock().unwrap(), |on| *on).unwrap());
        let mut state = self.state();
        if let Some(Fault::Sync(left)) = &mut state.fault {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        state.note(|| Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        put(&mut state.image, offset, data);
        state.note(|| Op::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// What lies beyond the end is lost.
fn put(image: &mut [u8], offset: u64, data: &[u8]) {
    let start = (offset as usize).min(image.len());
    let end = (offset as usize + data.len()).min(image.len());
    image[start..end].copy_from_slice(&data[..end - start]);
}

fn apply(image: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => put(image, *offset, data),
        Op::SetLen(len) => image.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

/// Walks a recorded run and gives the images a power cut could leave, moment by moment.
pub struct Cutter {
    events: Vec<Event>,
    /// All up to the last sync that was passed, and where that was.
    synced: Vec<u8>,
    synced_at: usize,
}

impl Cutter {
    pub fn new(events: Vec<Event>) -> Self {
        Self { events, synced: Vec::new(), synced_at: 0 }
    }

    /// The disk after a cut when `moment` events had happened. Moments must rise from call to call.
    pub fn cut(&mut self, moment: usize, random: &mut SmallRng) -> Disk {
        let last_sync = self.events[..moment].iter().rposition(|event| matches!(event.op, Op::Sync));
        let last_sync = last_sync.map_or(0, |place| place + 1).max(self.synced_at);
        for event in &self.events[self.synced_at..last_sync] {
            apply(&mut self.synced, &event.op);
        }
        self.synced_at = last_sync;
        let mut image = self.synced.clone();
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
        for event in &self.events[last_sync..moment] {
            if random.random_bool(kept) {
                apply(&mut image, &torn(&event.op, random));
            }
        }
        // The witness is never synced: any earlier state of it may be what is left, also none.
        let witness = match random.random_range(0..3) {
            0 => 0,
            1 => self.events[..moment].last().map_or(0, |event| event.witness),
            _ => self.events[..moment].get(random.random_range(0..moment.max(1))).map_or(0, |event| event.witness),
        };
        Disk::with_image(image, witness)
    }
}

/// One write in four loses a part, before or behind a sector's edge.
fn torn(op: &Op, random: &mut SmallRng) -> Op {
    let Op::Write(offset, data) = op else { return op.clone() };
    let first_edge = offset.next_multiple_of(SECTOR_BYTES);
    let edges = (offset + data.len() as u64).saturating_sub(first_edge) / SECTOR_BYTES;
    if edges == 0 || !random.random_ratio(1, 4) {
        return op.clone();
    }
    let edge = (first_edge + random.random_range(0..edges) * SECTOR_BYTES - offset) as usize;
    if random.random_bool(0.5) {
        Op::Write(*offset, data[..edge].to_vec())
    } else {
        Op::Write(offset + edge as u64, data[edge..].to_vec())
    }
}
