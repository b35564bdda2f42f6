//! The floor servers: sockets on monoio with a header before each frame and nothing else. A child process runs one.
//!
//! In: frames. Out: `echo` sends each back; `fan-out` sends each to every connection, merging what waits for a
//! connection into one write, or not. Always: a greeting is answered when the connection is a receiver; the process
//! ends when its standard input does, so it cannot outlive the parent.

use super::frames;
use crate::connect::Transport;
use crate::error::{BenchError, During};
use crate::signal::Signal;
use bytes::Bytes;
use monoio::io::{AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::rc::Rc;

const READ_BYTES: usize = 4096;
const ACCEPT_BACKLOG: i32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Echo,
    /// Everything that waits for a connection goes out in one write.
    FanOutMerged,
    /// One write per frame and connection.
    FanOutUnmerged,
}

/// Serves on a port of the kernel's choice, told on standard output, until standard input ends.
pub async fn run(kind: Kind, transport: Transport) -> Result<(), BenchError> {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let options = ListenerOpts::new().reuse_port(false).backlog(ACCEPT_BACKLOG);
    let listener = TcpListener::bind_with_config("127.0.0.1:0", &options).during("the floor's listener")?;
    println!("{}", listener.local_addr().during("the floor's address")?);
    let group = Rc::new(Group { transport, receivers: RefCell::default() });
    loop {
        let (stream, _) = listener.accept().await.during("accept")?;
        stream.set_nodelay(true).during("TCP_NODELAY")?;
        match kind {
            Kind::Echo => drop(monoio::spawn(echo(stream, transport))),
            Kind::FanOutMerged | Kind::FanOutUnmerged => {
                join(stream, Rc::clone(&group), kind == Kind::FanOutMerged);
            }
        }
    }
}

/// Ends with the connection; a client that breaks off is its own matter.
async fn echo(mut stream: TcpStream, transport: Transport) {
    let (mut buffer, mut replies) = (Vec::with_capacity(READ_BYTES), Vec::with_capacity(READ_BYTES));
    loop {
        let (read, filled) = frames::read_behind(&mut stream, buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        buffer = filled;
        for frame in frames::whole_frames(transport, &buffer) {
            frames::append_reply(transport, &frame, &mut replies);
        }
        let whole = frames::whole_bytes(transport, &buffer);
        buffer.drain(..whole);
        let (written, sent) = stream.write_all(replies).await;
        if written.is_err() {
            return;
        }
        replies = sent;
        replies.clear();
    }
}

struct Group {
    transport: Transport,
    receivers: RefCell<Vec<Rc<Receiver>>>,
}

/// Output of one connection. Bounded by what the load keeps in flight.
#[derive(Default)]
struct Receiver {
    waiting: RefCell<VecDeque<Bytes>>,
    bell: Signal,
}

impl Receiver {
    fn push(&self, frame: Bytes) {
        self.waiting.borrow_mut().push_back(frame);
        self.bell.ring();
    }
}

fn join(stream: TcpStream, group: Rc<Group>, merge: bool) {
    let receiver = Rc::new(Receiver::default());
    group.receivers.borrow_mut().push(Rc::clone(&receiver));
    let (read_half, write_half) = stream.into_split();
    monoio::spawn(write_waiting(write_half, Rc::clone(&receiver), merge));
    monoio::spawn(fan_out(read_half, group, receiver));
}

async fn fan_out(mut stream: OwnedReadHalf<TcpStream>, group: Rc<Group>, own: Rc<Receiver>) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = frames::read_behind(&mut stream, buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        buffer = filled;
        for frame in frames::whole_frames(group.transport, &buffer) {
            let mut reply = Vec::new();
            frames::append_reply(group.transport, &frame, &mut reply);
            let shared = Bytes::from(reply);
            if frame.payload.is_empty() {
                own.push(shared);
                continue;
            }
            group.receivers.borrow().iter().for_each(|receiver| receiver.push(shared.clone()));
        }
        let whole = frames::whole_bytes(group.transport, &buffer);
        buffer.drain(..whole);
    }
}

async fn write_waiting(mut stream: OwnedWriteHalf<TcpStream>, own: Rc<Receiver>, merge: bool) {
    let mut merged = Vec::with_capacity(READ_BYTES);
    loop {
        let Some(first) = own.waiting.borrow_mut().pop_front() else {
            own.bell.wait().await;
            continue;
        };
        let written = if merge {
            merged.clear();
            merged.extend_from_slice(&first);
            own.waiting.borrow_mut().drain(..).for_each(|frame| merged.extend_from_slice(&frame));
            let (written, sent) = stream.write_all(merged).await;
            merged = sent;
            written
        } else {
            stream.write_all(first).await.0
        };
        if written.is_err() {
            return;
        }
    }
}
