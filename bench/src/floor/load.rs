//! The load on the floor servers: the same loops as the real load, without a protocol.
//!
//! In: a server's address and how much to keep in flight. Out: counts and latencies in [`Counts`]. Always: what is in
//! flight is bounded by the case, and every task ends when the server does.

use super::frames::{self, GREETING_BYTES_MAX};
use crate::connect::{Transport, connect};
use crate::error::{BenchError, During};
use crate::measure::Counts;
use crate::signal::Signal;
use monoio::io::{AsyncWriteRentExt, OwnedReadHalf, Splitable};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 16 << 10;

/// What all loops of one case share.
pub struct Load {
    pub counts: Rc<Counts>,
    pub transport: Transport,
    pub payload_bytes: usize,
    started: Instant,
}

impl Load {
    pub fn new(counts: Rc<Counts>, transport: Transport, payload_bytes: usize) -> Rc<Self> {
        Rc::new(Self { counts, transport, payload_bytes, started: Instant::now() })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// `count` messages, due now.
    fn messages(&self, first_serial: u64, count: u64) -> Vec<u8> {
        let due_ns = self.now_ns();
        let mut messages = Vec::new();
        for serial in first_serial..first_serial + count {
            frames::append_message(self.transport, serial, due_ns, self.payload_bytes, &mut messages);
        }
        messages
    }
}

/// Opens a connection and waits until the server has greeted back.
pub async fn open(address: SocketAddr, transport: Transport, serial: usize) -> Result<TcpStream, BenchError> {
    let mut stream = connect(address, serial)?;
    let mut greeting = Vec::new();
    frames::append_request(transport, &[], &mut greeting);
    stream.write_all(greeting).await.0.during("greeting the floor server")?;
    let (read, _) = frames::read_behind(&mut stream, Vec::with_capacity(GREETING_BYTES_MAX)).await;
    read.during("the floor server's greeting")?;
    Ok(stream)
}

/// Keeps `outstanding` messages in flight on one connection of the echo server.
pub async fn echo(mut stream: TcpStream, load: Rc<Load>, outstanding: u64) {
    let mut next_serial = outstanding;
    let mut to_send = load.messages(0, outstanding);
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        if stream.write_all(to_send).await.0.is_err() {
            return;
        }
        let (read, filled) = frames::read_behind(&mut stream, buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        buffer = filled;
        let now_ns = load.now_ns();
        let mut answered = 0;
        for (_, due_ns) in frames::whole_frames(load.transport, &buffer).filter_map(frames::parse_message) {
            load.counts.answered(Duration::from_nanos(now_ns - due_ns));
            answered += 1;
        }
        let whole = frames::whole_bytes(load.transport, &buffer);
        buffer.drain(..whole);
        to_send = load.messages(next_serial, answered);
        next_serial += answered;
    }
}

/// Starts the load on a fan-out server: the first connection sends, all receive. A message is in flight until every
/// connection has it.
pub fn fan_out(streams: Vec<TcpStream>, load: &Rc<Load>, in_flight_max: u64) {
    let in_flight = Rc::new(InFlight {
        receivers: streams.len(),
        first_serial: Cell::new(0),
        missing: RefCell::new(VecDeque::new()),
        room: Signal::default(),
    });
    for (index, stream) in streams.into_iter().enumerate() {
        let (read_half, write_half) = stream.into_split();
        monoio::spawn(receive(read_half, Rc::clone(load), Rc::clone(&in_flight)));
        if index == 0 {
            monoio::spawn(send(write_half, Rc::clone(load), Rc::clone(&in_flight), in_flight_max));
        } else {
            // A half that is dropped leaves the connection open: the other one holds it.
            drop(write_half);
        }
    }
}

/// The messages under way, oldest first, each with how many receivers miss it.
struct InFlight {
    receivers: usize,
    first_serial: Cell<u64>,
    missing: RefCell<VecDeque<usize>>,
    room: Signal,
}

impl InFlight {
    /// One receiver has the message. True when it was the last one.
    fn delivered(&self, serial: u64) -> bool {
        let mut missing = self.missing.borrow_mut();
        let Some(left) = missing.get_mut((serial - self.first_serial.get()) as usize) else { return false };
        *left -= 1;
        let complete = *left == 0;
        while missing.front() == Some(&0) {
            missing.pop_front();
            self.first_serial.set(self.first_serial.get() + 1);
        }
        complete
    }
}

async fn receive(mut stream: OwnedReadHalf<TcpStream>, load: Rc<Load>, in_flight: Rc<InFlight>) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = frames::read_behind(&mut stream, buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        buffer = filled;
        let now_ns = load.now_ns();
        for (serial, due_ns) in frames::whole_frames(load.transport, &buffer).filter_map(frames::parse_message) {
            let latency = Duration::from_nanos(now_ns - due_ns);
            load.counts.delivered(latency);
            if in_flight.delivered(serial) {
                load.counts.answered(latency);
                in_flight.room.ring();
            }
        }
        let whole = frames::whole_bytes(load.transport, &buffer);
        buffer.drain(..whole);
    }
}

async fn send(mut stream: impl AsyncWriteRentExt, load: Rc<Load>, in_flight: Rc<InFlight>, in_flight_max: u64) {
    let mut next_serial = 0;
    loop {
        let room = in_flight_max - in_flight.missing.borrow().len() as u64;
        if room == 0 {
            in_flight.room.wait().await;
            continue;
        }
        in_flight.missing.borrow_mut().extend((0..room).map(|_| in_flight.receivers));
        if stream.write_all(load.messages(next_serial, room)).await.0.is_err() {
            return;
        }
        next_serial += room;
    }
}
