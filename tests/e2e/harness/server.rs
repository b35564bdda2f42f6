//! A real server process on a folder of its own.
//!
//! In: settings (environment variables by the names of the configuration). Out: a process that answers `/readyz`, its
//! addresses, its log. Always: each server has a loopback address of its own, so a restart finds its ports free whatever
//! else runs; the process dies with the guard; every wait has a deadline.

use super::endpoint::Endpoint;
use super::http;
use super::tokens::SigningKey;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Starting includes the recovery of a killed store.
const START_DEADLINE: Duration = Duration::from_secs(30);
const EXIT_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at something that gives no notice (an exit, a port).
const POLL: Duration = Duration::from_millis(5);

/// How a server differs from the default. Cheap to clone, so that a restart can use it again.
#[derive(Clone, Default)]
pub struct Settings {
    environment: BTreeMap<String, String>,
    /// `ulimit -n` of the process.
    descriptors_max: Option<u32>,
    /// Runs the process as this user id.
    user_id: Option<u32>,
}

impl Settings {
    /// Room for a test's clients, which all come from one address and sign in at once, and short heartbeats.
    pub fn for_tests() -> Self {
        let settings = Self::default()
            .with("IM_GATEWAY__CORES", "2")
            .with("IM_GATEWAY__HEARTBEAT_INTERVAL_MS", "300")
            .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "30000")
            .with("IM_GATEWAY__ACCEPT_RATE_PER_ADDRESS_PER_S", "100000")
            .with("IM_GATEWAY__ACCEPT_BURST_PER_ADDRESS", "100000")
            .with("IM_GATEWAY__UNAUTHENTICATED_PER_ADDRESS_MAX", "100000")
            .with("IM_GATEWAY__COMMAND_RATE_PER_S", "100000")
            .with("IM_GATEWAY__COMMAND_BURST", "100000")
            .with("IM_LOGIC__SEND_RATE_PER_USER_PER_S", "100000")
            .with("IM_LOGIC__SEND_BURST_PER_USER", "100000")
            .with("IM_LOGIC__PARTITIONS", "4")
            .with("IM_LOG__LEVEL", "info");
        match std::env::var("IM_TEST_DRIVER") {
            Ok(driver) => settings.with("IM_GATEWAY__DRIVER", &driver),
            Err(_) => settings,
        }
    }

    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    pub fn descriptors_max(mut self, limit: u32) -> Self {
        self.descriptors_max = Some(limit);
        self
    }

    pub fn user_id(mut self, id: u32) -> Self {
        self.user_id = Some(id);
        self
    }
}

/// The binary under test: this build's, or that of `IM_SERVER_BIN` (a build with a planted bug).
pub fn binary() -> PathBuf {
    std::env::var_os("IM_SERVER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_im-server").into(), PathBuf::from)
}

/// 127.x.y.z: the process and a counter, so that no two servers of a test run share one.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
    IpAddr::V4(Ipv4Addr::new(127, (process >> 8) as u8 | 1, process as u8, number))
}

pub struct Server {
    settings: Settings,
    folder: Folder,
    child: Child,
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
    pub key: SigningKey,
    log: Log,
    readers: Readers,
}

/// Where a server is told to listen; port 0: wherever there is room.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
}

impl Addresses {
    pub fn any_port(address: IpAddr) -> Self {
        let any = SocketAddr::new(address, 0);
        Self { tcp: any, websocket: any, http: any }
    }
}

/// The threads that read the process's output; they end with it.
type Readers = Vec<std::thread::JoinHandle<()>>;

/// Everything that every run of this server printed.
type Log = Arc<Mutex<String>>;

/// A data folder that outlives the processes on it.
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

impl Server {
    pub fn start(settings: Settings) -> Self {
        Self::start_in(Folder::new(), settings)
    }

    pub fn start_in(folder: Folder, settings: Settings) -> Self {
        Self::start_at(folder, settings, Addresses::any_port(own_address()))
    }

    pub fn start_at(folder: Folder, settings: Settings, addresses: Addresses) -> Self {
        let started = Started::new(&folder, &settings, addresses);
        match started.ready(folder, settings) {
            Ok(server) => {
                println!("clients connect to {}", server.clients());
                server
            }
            Err((status, log)) => panic!("no start: {status}\n{log}"),
        }
    }

    /// Starts, expecting the process to end by itself.
    pub fn refuse_to_start(folder: &Folder, settings: &Settings, addresses: Addresses) -> (ExitStatus, String) {
        let mut started = Started::new(folder, settings, addresses);
        let status = wait(&mut started.child).unwrap_or_else(|| panic!("it serves: {}", started.printed()));
        join(&mut started.readers);
        (status, started.printed())
    }

    /// A process that may end at any moment (an armed fault point): ready, or already gone.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        assert!(!self.is_running(), "restart of a running server");
        let Self { tcp, websocket, http, .. } = *self;
        let started = Started::new(&self.folder, &self.settings, Addresses { tcp, websocket, http });
        match started.ready(self.folder.clone(), self.settings.clone()) {
            Ok(next) => {
                let before = std::mem::take(&mut *self.log.lock().unwrap());
                next.log.lock().unwrap().insert_str(0, &before);
                *self = next;
                Ok(())
            }
            Err((status, log)) => {
                self.log.lock().unwrap().push_str(&log);
                Err(status)
            }
        }
    }

    /// Where the clients of this run connect: `IM_TEST_TRANSPORT`.
    pub fn clients(&self) -> Endpoint {
        Endpoint::of_this_run(self.tcp, self.websocket)
    }

    /// The same folder, the same ports.
    pub fn restart(&mut self) {
        if let Err(status) = self.try_restart() {
            panic!("no restart: {status}");
        }
    }

    /// For the next restart.
    #[cfg(feature = "fault-points")]
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Kill -9; returns when the process is gone.
    pub fn kill9(&mut self) {
        // A child that ended by itself is as dead.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        join(&mut self.readers);
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        // SAFETY: `kill` takes two integers; the process is our own child and not yet waited for.
        let result = unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
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

    pub fn folder(&self) -> Folder {
        self.folder.clone()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// One number of `/metrics`, by the start of its line; the sum when several lines match.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = http::get(self.http, "/metrics").1;
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

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the server's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// A process whose readiness is not known yet.
struct Started {
    child: Child,
    key: SigningKey,
    log: Log,
    readers: Readers,
}

impl Started {
    fn new(folder: &Folder, settings: &Settings, addresses: Addresses) -> Self {
        let key = SigningKey::in_folder(folder.path());
        let mut command = match settings.descriptors_max {
            None => Command::new(binary()),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(binary());
                shell
            }
        };
        command
            .arg("standalone")
            .current_dir(folder.path())
            .env("IM_STORE__FOLDER", folder.data())
            .env("IM_LISTEN__TCP", addresses.tcp.to_string())
            .env("IM_LISTEN__WEBSOCKET", addresses.websocket.to_string())
            .env("IM_LISTEN__HTTP", addresses.http.to_string())
            .env("IM_AUTH__KEYS", key.configuration())
            .envs(&settings.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(id) = settings.user_id {
            command.uid(id).gid(id);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", binary()));
        let log = Log::default();
        let readers = vec![
            read_into(child.stdout.take().unwrap(), log.clone()),
            read_into(child.stderr.take().unwrap(), log.clone()),
        ];
        Self { child, key, log, readers }
    }

    /// Waits until `/readyz` says so. The error holds the exit status and what was printed.
    fn ready(mut self, folder: Folder, settings: Settings) -> Result<Server, (ExitStatus, String)> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                join(&mut self.readers);
                return Err((status, self.printed()));
            }
            let addresses = ["  tcp ", "  ws ", "  http "].map(|name| self.printed_address(name));
            if let [Some(tcp), Some(websocket), Some(http)] = addresses
                && http::try_get(http, "/readyz").is_ok_and(|(status, _)| status == 200)
            {
                let Self { child, key, log, readers } = self;
                return Ok(Server { settings, folder, child, tcp, websocket, http, key, log, readers });
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("not ready within {START_DEADLINE:?}:\n{}", self.printed());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The address on the line of the start text that begins with `name`.
    fn printed_address(&self, name: &str) -> Option<SocketAddr> {
        let printed = self.log.lock().unwrap();
        let line = printed.lines().find(|line| line.starts_with(name))?;
        line.split([' ', '/']).find_map(|word| word.parse().ok())
    }

    fn printed(&self) -> String {
        self.log.lock().unwrap().clone()
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
