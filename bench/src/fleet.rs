//! Many connections: opens them, keeps their time, waits for them.
//!
//! In: how many, whose, how fast. Out: connections that are signed in and synced. Always: user names hold the run's
//! own number, so conversations of an earlier run on the same server are never met.

use crate::clock::Clock;
use crate::connect;
use crate::error::BenchError;
use crate::link::{Link, Observer, State};
use crate::server_process::Server;
use im_client::{Config, Core};
use im_proto::{DeviceId, UserId};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many sign in at the same time.
const OPENING_MAX: usize = 32;
/// How exactly timers of the cores are kept: heartbeats and repetitions need no better.
const TIMER_INTERVAL: Duration = Duration::from_millis(50);
const DEVICE: &str = "bench";

pub struct Fleet {
    pub links: Vec<Rc<Link>>,
    /// The seed of the cores' delays and ids, and the run's own number.
    run: u64,
}

impl Fleet {
    /// A fleet of `count` connections, none open yet.
    pub fn new(server: &Server, count: usize, clock: Clock, observer: &Weak<dyn Observer>) -> Result<Self, BenchError> {
        connect::check_open_files(count)?;
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_micros() as u64);
        let mut links = Vec::with_capacity(count);
        for serial in 0..count {
            let user = user(run, serial)?;
            let token = server.tokens.token(user.as_str())?;
            let config = Config::new(user, id(DeviceId::parse(DEVICE))?, token);
            let core = Core::new(config, SmallRng::seed_from_u64(run.wrapping_add(serial as u64)));
            links.push(Link::new(serial, server.target(serial).clone(), clock, core, observer.clone()));
        }
        Ok(Self { links, run })
    }

    /// The user of a connection, or for a number beyond them one who has none.
    pub fn user(&self, serial: usize) -> Result<UserId, BenchError> {
        user(self.run, serial)
    }

    /// Opens all connections, at most `per_second` of them (0: as fast as they are accepted), and waits until each is
    /// signed in and synced.
    pub async fn open(&self, per_second: u64) -> Result<(), BenchError> {
        let next = Rc::new(Cell::new(0));
        let failure = Rc::new(RefCell::new(None));
        let start = monoio::time::Instant::now();
        let openers: Vec<_> = (0..OPENING_MAX.min(self.links.len()))
            .map(|_| {
                let (links, next, failure) = (self.links.clone(), Rc::clone(&next), Rc::clone(&failure));
                monoio::spawn(async move {
                    while let Some(link) = links.get(next.replace(next.get() + 1)) {
                        if let Some(due_us) = (link.serial as u64 * 1_000_000).checked_div(per_second) {
                            monoio::time::sleep_until(start + Duration::from_micros(due_us)).await;
                        }
                        link.open();
                        while link.state() == State::Dialing {
                            link.changed.wait().await;
                        }
                        if let State::Ended(cause) = link.state() {
                            *failure.borrow_mut() =
                                Some(format!("connection {} was not signed in: {cause:?}", link.serial));
                            return;
                        }
                    }
                })
            })
            .collect();
        for opener in openers {
            opener.await;
        }
        failure.take().map_or(Ok(()), |text| Err(BenchError::Setup(text)))
    }

    /// Keeps the time of all cores for the rest of the run.
    pub fn keep_time(&self) {
        let links = self.links.clone();
        monoio::spawn(async move {
            loop {
                monoio::time::sleep(TIMER_INTERVAL).await;
                links.iter().for_each(|link| link.timer());
            }
        });
    }
}

fn user(run: u64, serial: usize) -> Result<UserId, BenchError> {
    id(UserId::parse(&format!("bench-{run:x}-{serial}")))
}

fn id<T>(parsed: Result<T, im_proto::InvalidId>) -> Result<T, BenchError> {
    parsed.map_err(|error| BenchError::Setup(error.to_string()))
}
