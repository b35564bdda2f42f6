//! One process of im-server, in any role.
//!
//! In: a role, settings (environment variables by the names of the configuration), addresses. Out: a process that answers
//! `/readyz`, where it listens, everything that its runs printed. Always: a restart listens where the run before did; the
//! process dies with the guard; every wait has a deadline.

use super::http;
pub use super::settings::{Settings, binary};
use super::tokens::SigningKey;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Starting includes the recovery of a killed store.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);
/// Names the file that says how far a test has set the clock of a process.
pub const CLOCK_FILE: &str = "IM_FAULT_CLOCK_FILE";
const EXIT_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that gives no notice (an exit, a port).
pub(super) const POLL: Duration = Duration::from_millis(5);

/// 127.x.y.z: the process and a counter, so that a restart finds its ports free whatever else runs.
fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1;
    IpAddr::V4(Ipv4Addr::new(127, (process >> 8) as u8 | 1, process as u8, number as u8))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Standalone,
    #[cfg_attr(not(feature = "services"), allow(dead_code, reason = "clusters and chaos need the services"))]
    Gateway,
    Logic,
}

impl Role {
    fn command(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Gateway => "gateway",
            Self::Logic => "logic",
        }
    }

    /// Its listeners: the variable, the name in the start text, the address.
    fn listeners(self, at: &mut Addresses) -> Vec<(&'static str, &'static str, &mut SocketAddr)> {
        let Addresses { tcp, websocket, http, rpc } = at;
        let clients = [("IM_LISTEN__TCP", "  tcp ", tcp), ("IM_LISTEN__WEBSOCKET", "  ws ", websocket)];
        let own = match self {
            Self::Standalone => vec![("IM_LISTEN__HTTP", "  http ", http)],
            Self::Gateway => vec![("IM_LISTEN__HTTP", "  http ", http), ("IM_LISTEN__GATEWAY_RPC", "  rpc ", rpc)],
            Self::Logic => {
                return vec![("IM_LISTEN__LOGIC_HTTP", "  http ", http), ("IM_LISTEN__LOGIC_RPC", "  rpc ", rpc)];
            }
        };
        clients.into_iter().chain(own).collect()
    }
}

/// Where a process listens; port 0: wherever there is room. A role uses those that it has.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
    /// Deliveries into a gateway, or questions to logic.
    pub rpc: SocketAddr,
}

impl Addresses {
    pub fn any_port(address: IpAddr) -> Self {
        let any = SocketAddr::new(address, 0);
        Self { tcp: any, websocket: any, http: any, rpc: any }
    }

    /// On a loopback address that no other process of this run has.
    pub fn own() -> Self {
        Self::any_port(own_address())
    }
}

/// A folder that outlives the processes in it.
#[derive(Clone)]
pub struct Folder(Arc<tempfile::TempDir>);

impl Folder {
    pub fn new() -> Self {
        Self(Arc::new(tempfile::Builder::new().prefix("im-server-").tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

/// What every run of a process has in common.
#[derive(Clone)]
pub struct Launch {
    pub role: Role,
    pub folder: Folder,
    /// Of its deployment and its place in it; the settings come behind and override.
    pub environment: BTreeMap<String, String>,
    pub settings: Settings,
}

impl Launch {
    pub fn standalone(folder: Folder, settings: Settings) -> Self {
        let data = folder.data().display().to_string();
        let environment = BTreeMap::from([("IM_STORE__FOLDER".to_owned(), data)]);
        Self { role: Role::Standalone, folder, environment, settings }
    }

    /// A command line of the program with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let limits = self.settings.limits(self.role);
        let program = self.settings.binary();
        let mut command = match limits.as_str() {
            "" => Command::new(program),
            limits => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("{limits}exec \"$0\" \"$@\"")).arg(program);
                shell
            }
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("IM_AUTH__KEYS", SigningKey::in_folder(self.folder.path()).configuration())
            .envs(&self.environment)
            .envs(&self.settings.environment);
        if let Some(id) = self.settings.user_id {
            command.uid(id).gid(id);
        }
        command
    }

    /// Runs the process, which is not ready yet.
    pub fn start(self, addresses: Addresses) -> Started {
        Started::run(self, addresses, Log::default())
    }
}

/// Everything that every run of a process printed.
type Log = Arc<Mutex<String>>;

/// The threads that read the process's output; they end with it.
type Readers = Vec<std::thread::JoinHandle<()>>;

pub struct Process {
    launch: Launch,
    pub addresses: Addresses,
    child: Child,
    log: Log,
    readers: Readers,
}

impl Process {
    /// The first half of a restart, so that several processes can start at once.
    pub fn begin_restart(&mut self) -> Started {
        assert!(!self.is_running(), "restart of a running process");
        Started::run(self.launch.clone(), self.addresses, self.log.clone())
    }

    /// It may end at any moment (an armed fault point): ready, or already gone.
    pub fn end_restart(&mut self, started: Started) -> Result<(), ExitStatus> {
        *self = started.ready().map_err(|(status, _)| status)?;
        Ok(())
    }

    /// For the next restart.
    #[cfg(any(feature = "fault-points", feature = "services"))]
    pub fn set(&mut self, settings: Settings) {
        self.launch.settings = settings;
    }

    #[cfg(feature = "services")]
    pub fn settings(&self) -> Settings {
        self.launch.settings.clone()
    }

    /// So far from the right time. Of a process that was started with a file for it.
    #[cfg(all(feature = "services", feature = "fault-points"))]
    pub fn set_clock(&self, offset_ms: i64) {
        let file = PathBuf::from(&self.launch.environment[CLOCK_FILE]);
        // Whole at once: the process reads it at any moment.
        let unfinished = file.with_extension("new");
        std::fs::write(&unfinished, offset_ms.to_string()).unwrap();
        std::fs::rename(&unfinished, &file).unwrap();
    }

    pub fn launch(&self) -> Launch {
        self.launch.clone()
    }

    pub fn role(&self) -> Role {
        self.launch.role
    }

    /// Kill -9; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.begin_kill9();
        self.child.wait().unwrap();
        join(&mut self.readers);
    }

    /// Kill -9, without waiting.
    pub fn begin_kill9(&mut self) {
        // A child that ended by itself is as dead.
        let _ = self.child.kill();
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    pub(super) fn signal(&self, signal: libc::c_int) {
        // SAFETY: `kill` takes two integers; the process is our own child and not yet waited for.
        let result = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(result, 0);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child).unwrap_or_else(|| panic!("still running: {}", self.log()));
        join(&mut self.readers);
        status
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The last lines it printed.
    pub fn tail(&self) -> String {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        tail.into_iter().rev().map(|line| format!("  {line}\n")).collect()
    }

    /// One number of `/metrics`, by the start of its line; the sum when several lines match.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = http::try_get(self.addresses.http, "/metrics").ok()?;
        let values =
            text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
        values.reduce(|a: f64, b: f64| a + b)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("the last lines of {:?}:\n{}", self.launch.role, self.tail());
        }
    }
}

/// A process whose readiness is not known yet.
pub struct Started {
    /// `None` only once it is handed on.
    running: Option<Running>,
}

struct Running {
    launch: Launch,
    addresses: Addresses,
    child: Child,
    log: Log,
    /// Where this run begins in the log.
    begin: usize,
    readers: Readers,
}

impl Started {
    fn run(launch: Launch, mut addresses: Addresses, log: Log) -> Self {
        let of_role = vec![launch.role.command().to_owned()];
        let arguments = launch.settings.arguments.clone().unwrap_or(of_role);
        let mut command = launch.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        for (variable, _, address) in launch.role.listeners(&mut addresses) {
            // What a test set itself stands.
            if !launch.settings.environment.contains_key(variable) {
                command.env(variable, address.to_string());
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = log.lock().unwrap().len();
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", launch.settings.binary()));
        let readers = vec![
            read_into(child.stdout.take().unwrap(), log.clone()),
            read_into(child.stderr.take().unwrap(), log.clone()),
        ];
        Self { running: Some(Running { launch, addresses, child, log, begin, readers }) }
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    /// Waits until `/readyz` says so. The error holds the exit status and what was printed.
    pub fn ready(mut self) -> Result<Process, (ExitStatus, String)> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(ended) = self.ended() {
                return Err(ended);
            }
            let running = self.running();
            if let Some(addresses) = running.printed_addresses()
                && http::try_get(addresses.http, "/readyz").is_ok_and(|(status, _)| status == 200)
            {
                let Running { launch, child, log, readers, .. } = self.running.take().unwrap();
                return Ok(Process { launch, addresses, child, log, readers });
            }
            assert!(Instant::now() < deadline, "not ready within {START_DEADLINE:?}:\n{}", running.printed());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for the process to end by itself.
    pub fn refused(mut self) -> (ExitStatus, String) {
        let running = self.running();
        let status = wait(&mut running.child).unwrap_or_else(|| panic!("it serves: {}", running.printed()));
        join(&mut running.readers);
        (status, running.printed())
    }

    fn ended(&mut self) -> Option<(ExitStatus, String)> {
        let running = self.running();
        let status = running.child.try_wait().unwrap()?;
        join(&mut running.readers);
        Some((status, running.printed()))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Running {
    fn printed(&self) -> String {
        self.log.lock().unwrap()[self.begin..].to_owned()
    }

    /// All addresses of the role, once the start text has them.
    fn printed_addresses(&self) -> Option<Addresses> {
        let printed = self.printed();
        let mut addresses = self.addresses;
        for (_, name, address) in self.launch.role.listeners(&mut addresses) {
            let line = printed.lines().find(|line| line.starts_with(name))?;
            *address = line.split([' ', '/']).find_map(|word| word.parse().ok())?;
        }
        Some(addresses)
    }
}

fn join(readers: &mut Readers) {
    readers.drain(..).for_each(|reader| reader.join().unwrap());
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + EXIT_DEADLINE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(POLL);
    }
    let _ = child.kill();
    None
}

fn read_into(pipe: impl Read + Send + 'static, log: Log) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
