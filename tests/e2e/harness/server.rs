//! The server under test: one standalone process, or with `IM_TEST_CLUSTER=1` a cluster on real services.
//!
//! In: settings. Out: something that clients connect to, that can be killed, stopped and started again, with its log and its
//! metrics. Always: a test cannot see which of the two it is, unless it asks for one process of a cluster; what is done to
//! the server is done to all its processes.

#[cfg(feature = "services")]
use super::deployment::Deployment;
use super::endpoint::Endpoint;
use super::process::Process;
use super::tokens::SigningKey;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use super::process::{Addresses, Folder, Launch, Role, Settings, binary};

/// Between two looks at the metrics.
const POLL: Duration = Duration::from_millis(20);
const CAUGHT_UP_DEADLINE: Duration = Duration::from_secs(120);

pub struct Server {
    /// Workers before gateways.
    pub(super) processes: Vec<Process>,
    folder: Folder,
    /// Where clients connect, by turns.
    pub(super) doors: Vec<Endpoint>,
    next_door: AtomicUsize,
    /// Of the only process, or of the first gateway.
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
    pub key: SigningKey,
    /// What the processes share is removed when they are gone.
    #[cfg(feature = "services")]
    pub(super) deployment: Option<Deployment>,
}

/// Tests run on two gateways and two workers.
pub fn is_cluster() -> bool {
    std::env::var("IM_TEST_CLUSTER").is_ok_and(|wanted| wanted == "1")
}

impl Server {
    pub fn start(settings: Settings) -> Self {
        if is_cluster() {
            #[cfg(feature = "services")]
            return Self::start_cluster(settings);
            #[cfg(not(feature = "services"))]
            panic!("a cluster is tested in a build with --features services");
        }
        Self::start_in(Folder::new(), settings)
    }

    /// Standalone, on a folder that may have been used before.
    pub fn start_in(folder: Folder, settings: Settings) -> Self {
        Self::start_at(folder, settings, Addresses::own())
    }

    pub fn start_at(folder: Folder, settings: Settings, addresses: Addresses) -> Self {
        match Launch::standalone(folder.clone(), settings).start(addresses).ready() {
            Ok(process) => Self::of(folder, vec![process]),
            Err((status, log)) => panic!("no start: {status}\n{log}"),
        }
    }

    /// Starts standalone, expecting the process to end by itself.
    pub fn refuse_to_start(folder: &Folder, settings: &Settings, addresses: Addresses) -> (ExitStatus, String) {
        Launch::standalone(folder.clone(), settings.clone()).start(addresses).refused()
    }

    pub(super) fn of(folder: Folder, processes: Vec<Process>) -> Self {
        let door = |of: &Process| Endpoint::of_this_run(of.addresses.tcp, of.addresses.websocket);
        let doors: Vec<Endpoint> = processes.iter().filter(|of| of.role() != Role::Logic).map(door).collect();
        let first = processes.iter().find(|process| process.role() != Role::Logic).unwrap();
        let Addresses { tcp, websocket, http, .. } = first.addresses;
        println!("clients connect to {}", doors.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", "));
        let key = SigningKey::in_folder(folder.path());
        let next_door = AtomicUsize::new(0);
        Self {
            processes,
            folder,
            doors,
            next_door,
            tcp,
            websocket,
            http,
            key,
            #[cfg(feature = "services")]
            deployment: None,
        }
    }

    /// Where a client of this run connects: over `IM_TEST_TRANSPORT`, to each gateway by turns.
    pub fn clients(&self) -> Endpoint {
        self.doors[self.next_door.fetch_add(1, Ordering::Relaxed) % self.doors.len()]
    }

    /// The same folder, the same ports.
    pub fn restart(&mut self) {
        if let Err(status) = self.try_restart() {
            panic!("no restart: {status}");
        }
    }

    /// Processes that may end at any moment (an armed fault point): ready, or one is already gone.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        let started: Vec<_> = self.processes.iter_mut().map(Process::begin_restart).collect();
        let ends = self.processes.iter_mut().zip(started).map(|(process, started)| process.end_restart(started));
        ends.fold(Ok(()), Result::and)
    }

    /// For the next restart.
    #[cfg(any(feature = "fault-points", feature = "services"))]
    pub fn set(&mut self, settings: Settings) {
        self.processes.iter_mut().for_each(|process| process.set(settings.clone()));
    }

    /// Kill -9; returns when all is gone.
    pub fn kill9(&mut self) {
        self.processes.iter_mut().for_each(Process::begin_kill9);
        self.processes.iter_mut().for_each(Process::kill9);
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.processes.iter().for_each(Process::terminate);
    }

    /// Until all have ended; a failure, if there was one.
    pub fn wait(&mut self) -> ExitStatus {
        let statuses: Vec<ExitStatus> = self.processes.iter_mut().map(Process::wait).collect();
        *statuses.iter().find(|status| !status.success()).unwrap_or(&statuses[0])
    }

    #[cfg(feature = "fault-points")]
    pub fn is_running(&mut self) -> bool {
        self.processes.iter_mut().any(Process::is_running)
    }

    /// A command of the program on what this server has, whether it runs or not.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.processes[0].launch().command(arguments)
    }

    pub fn folder(&self) -> Folder {
        self.folder.clone()
    }

    pub fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }

    /// One number of `/metrics`, by the start of its line; the sum when several lines match.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.processes.iter().filter_map(|process| process.metric(name)).reduce(|a, b| a + b)
    }

    /// Until the projections show everything that is in the logs.
    pub async fn is_caught_up(&self) {
        let caught_up = async {
            loop {
                let number = |state| self.metric(&format!("im_logic_partitions{{projections=\"{state}\"}}"));
                if number("behind") == Some(0.0) && number("caught_up") >= Some(self.partitions()) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let in_time = tokio::time::timeout(CAUGHT_UP_DEADLINE, caught_up).await;
        assert!(in_time.is_ok(), "projections are behind the logs after {CAUGHT_UP_DEADLINE:?}");
    }

    /// So many are taken over when nothing is amiss, or at least.
    fn partitions(&self) -> f64 {
        #[cfg(feature = "services")]
        if self.deployment.is_some() {
            return super::deployment::PARTITIONS as f64;
        }
        1.0
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.processes.iter().map(Process::resident_bytes).sum()
    }
}
