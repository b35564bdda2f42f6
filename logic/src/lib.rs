//! The logic: decide, store, tell. Stateless workers and the handlers of requests that only read.
//!
//! In: records of the [`Queue`](im_storage::ports::Queue) and requests of gateways. Out: entries in the log, rows in its
//! projections, answers and pushes. Always: knows the ports of `storage` and the words of `proto`, nothing else; what is
//! acked is stored; whatever is in memory may be lost at any moment.
//!
//! | step | file | in → out |
//! |---|---|---|
//! | 5 | `consume.rs`, `admit.rs`, `prefetch.rs` | a batch → commands in the lanes of their logs |
//! | – | `set_aside.rs` | records that no attempt can work off → the dead letters |
//! | 6 | `decide.rs`, `decide/` | a command on the place of its log → a decision; pure |
//! | 7 | `persist.rs` | decisions → one ordered append; what was not stored is decided again |
//! | 8 | `deliver.rs` | stored entries → directory, inbox, answers and pushes; then the offset moves |
//! | – | `catch_up.rs` | what the projections lack → repeated from the log |
//! | 2 | `requests/sign_in.rs`, `token.rs` | a token → a login |
//! | – | `accounts.rs` | the relations → who is banned; the end of their logins |
//! | – | `requests/` | pull, sync, list members → answers |

pub mod accounts;
mod admit;
mod authorize;
mod catch_up;
mod clock;
mod config;
mod consume;
mod cover;
mod decide;
mod deliver;
mod entry;
mod frame;
mod log_cache;
mod log_state;
mod membership;
mod memory;
mod metrics;
mod persist;
mod planted;
mod prefetch;
mod rate;
mod read_marks;
mod receipts;
mod refusal;
mod requests;
mod set_aside;
pub mod token;
mod traced;
mod worker;

pub use config::{Limits, LogicConfig};
pub use metrics::LogicMetrics;
pub use requests::{
    DeviceState, LargeHead, LargeMembers, LargeMembership, ReadAnswer, Requests, SignInRefused, SignedIn,
};
pub use worker::{Ports, WorkerHandle};

use accounts::AccountsHandle;
use im_observe::LineLimit;
use im_storage::ports::{Consumer, Relations, StoreError};
use rate::SendRate;
use std::sync::Arc;
use tokio::sync::watch;
use worker::{REFUSED_LINES_PER_S_MAX, Shared, Worker};

/// The logic of one process.
#[derive(Clone)]
pub struct Logic {
    shared: Shared,
}

impl Logic {
    pub fn new(ports: Ports, config: LogicConfig) -> Self {
        let send_rate = SendRate::new(config.send_rate_per_user_per_s, config.send_burst_per_user);
        let metrics = Arc::new(LogicMetrics::default());
        let shared = Shared {
            ports,
            config: Arc::new(config),
            metrics,
            accounts: Arc::default(),
            send_rate: Arc::new(send_rate),
            refused_lines: Arc::new(LineLimit::new(REFUSED_LINES_PER_S_MAX)),
        };
        Self { shared }
    }

    pub fn metrics(&self) -> Arc<LogicMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Starts a worker on the present tokio runtime.
    pub fn spawn_worker(&self, consumer: Box<dyn Consumer>) -> WorkerHandle {
        let (stop, stopped) = watch::channel(false);
        let (caught_up, ready) = watch::channel(false);
        let worker = Worker::new(self.shared.clone(), stopped);
        WorkerHandle { task: tokio::spawn(worker.run(consumer, caught_up)), stop, ready }
    }

    /// Follows who is banned, on the present tokio runtime. Nobody is signed in before the handle is ready.
    pub async fn follow_accounts(&self, relations: &dyn Relations) -> Result<AccountsHandle, StoreError> {
        accounts::follow(self.shared.clone(), relations).await
    }

    /// The handlers of sign-ins and of requests that only read.
    pub fn requests(&self, keys: token::KeyRing) -> Requests {
        Requests::new(self.shared.clone(), keys)
    }
}
