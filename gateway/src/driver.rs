//! Which way a core waits for its sockets: io_uring or epoll.
//!
//! In: the configured driver. Out: a runtime of one thread. Always: the choice is made once for all cores, and told, so
//! that a fallback is never silent.

use crate::config::{Driver, StartError};
use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::io;

pub type Runtime = FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    Uring,
    Epoll,
}

impl Chosen {
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Settles the driver for this process by making a runtime of it.
pub fn choose(driver: Driver) -> Result<Chosen, StartError> {
    if driver == Driver::Epoll {
        return Ok(Chosen::Epoll);
    }
    // On a thread of its own: the end of a ring interrupts the system calls of the thread that made it.
    let probe = std::thread::spawn(|| monoio::utils::detect_uring() && build(Chosen::Uring).is_ok());
    let has_uring = probe.join().unwrap_or(false);
    match (driver, has_uring) {
        (_, true) => Ok(Chosen::Uring),
        (Driver::Uring, false) => Err(StartError::NoUring),
        (_, false) => {
            tracing::warn!("io_uring is not available here: using epoll");
            Ok(Chosen::Epoll)
        }
    }
}

/// A runtime on the calling thread.
pub fn build(chosen: Chosen) -> io::Result<Runtime> {
    Ok(match chosen {
        Chosen::Uring => uring()?.into(),
        Chosen::Epoll => RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.into(),
    })
}

fn uring() -> io::Result<monoio::Runtime<TimeDriver<IoUringDriver>>> {
    // Completions wait for the next system call instead of interrupting this thread: a third less CPU per message.
    let mut ring = io_uring::IoUring::builder();
    ring.setup_coop_taskrun();
    let builder = RuntimeBuilder::<IoUringDriver>::new().enable_timer();
    // Kernels before 5.19 do not know the flag.
    builder.uring_builder(ring).build().or_else(|_| RuntimeBuilder::<IoUringDriver>::new().enable_timer().build())
}
