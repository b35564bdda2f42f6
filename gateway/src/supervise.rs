//! The thread of one core: runs it, and starts it again when it panics.
//!
//! In: a core's number and its first listeners. Out: a thread. Always: after a panic every connection of the core is ended
//! and its login signed out, the old listeners take nothing more, and a new core goes on with connection ids never used
//! before; the other cores notice nothing.

use crate::accept::{Listener, accept};
use crate::affinity;
use crate::core::Core;
use crate::driver;
use crate::gateway::Shared;
use crate::listen::{self, Listening};
use crate::receive::receive;
use crate::timer::TICK_MS;
use crate::transport::Kind;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a core that stops waits for its connections' tasks.
const END_WAIT_MS: u64 = 2_000;
/// Turns of the loop that a core gives its last tasks.
const SETTLE_ROUNDS: u32 = 3;
/// Pauses before a core is started again, so that one that panics at once does not spin.
const RESTART_PAUSE_MS: u64 = 100;

/// The body of a core's thread.
pub fn run(index: u16, shared: Arc<Shared>, first: Listening, processor: Option<usize>) {
    if let Some(processor) = processor {
        affinity::pin_to(processor);
    }
    let mut listening = Some(first);
    loop {
        match catch_unwind(AssertUnwindSafe(|| run_once(index, &shared, listening.take()))) {
            Ok(Ok(Ended::Stopped)) => return,
            Ok(Ok(Ended::Panicked)) | Err(_) => {
                shared.metrics[usize::from(index)].core_restarts.add(1);
                tracing::error!(core = index, "a core panicked and is started again");
            }
            Ok(Err(error)) => tracing::error!(core = index, %error, "a core cannot start"),
        }
        if shared.lanes[usize::from(index)].is_stopped() {
            return;
        }
        std::thread::sleep(Duration::from_millis(RESTART_PAUSE_MS));
    }
}

enum Ended {
    Stopped,
    Panicked,
}

fn run_once(index: u16, shared: &Arc<Shared>, listening: Option<Listening>) -> io::Result<Ended> {
    let mut runtime = driver::build(shared.driver)?;
    let sockets = match listening {
        Some(sockets) => sockets,
        None => listen::listen_again(shared.addresses)?,
    };
    let core = Core::new(index, shared.clone());
    let listening = RefCell::default();
    let served = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve(&core, sockets, &listening))));
    // The same runtime goes on: its tasks are told to end, which gives their sockets back.
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(end(&core, &listening))));
    core.lane.forget_waker();
    if ended.is_err() || drop_quietly(runtime).is_err() {
        tracing::error!(core = index, "a core did not end cleanly; its sockets may stay open");
    }
    match served {
        Ok(result) => result.map(|()| Ended::Stopped),
        Err(_) => Ok(Ended::Panicked),
    }
}

/// The open listeners of a core.
type Open = RefCell<Vec<Rc<Listener>>>;

async fn serve(core: &Rc<Core>, sockets: Listening, listening: &Open) -> io::Result<()> {
    // Not held across a wait: after a panic this future stays behind, and a socket must be closed inside its runtime.
    let Listening { tcp, websocket } = sockets;
    let sockets = [(Kind::Tcp, Some(tcp)), (Kind::WebSocket, websocket)];
    for (kind, socket) in sockets.into_iter().filter_map(|(kind, socket)| Some((kind, socket?))) {
        let listener = Rc::new(Listener::new(kind, socket)?);
        monoio::spawn(accept(core.clone(), listener.clone()));
        listening.borrow_mut().push(listener);
    }
    monoio::spawn(receive(core.clone()));
    let mut due = Vec::new();
    while !core.is_stopping.get() {
        monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        if core.is_draining.get() {
            close_all(listening);
        }
        core.take_due(&mut due);
        for entry in due.drain(..) {
            if let Some(connection) = core.connection(entry.connection) {
                connection.on_time(core, entry);
            }
        }
        core.go_on_sweeping();
        core.look_after_large();
    }
    Ok(())
}

/// Ends every task of the core, or gives up after a while.
async fn end(core: &Rc<Core>, listening: &Open) {
    core.is_stopping.set(true);
    close_all(listening);
    let connections: Vec<_> = core.connections.borrow().values().cloned().collect();
    for connection in connections {
        connection.end();
    }
    for _ in 0..END_WAIT_MS / 10 {
        if core.connections.borrow().is_empty() {
            break;
        }
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
    // A connection whose own task panicked outside its guard is still in the table.
    let left: Vec<_> = core.connections.borrow().values().cloned().collect();
    for connection in left {
        connection.gone(core);
    }
    settle().await;
}

fn close_all(listening: &Open) {
    for listener in listening.borrow_mut().drain(..) {
        listener.close();
    }
}

/// Lets the tasks that are ready finish, the closing of sockets among them.
async fn settle() {
    for _ in 0..SETTLE_ROUNDS {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn drop_quietly<T>(value: T) -> std::thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(value)))
}
