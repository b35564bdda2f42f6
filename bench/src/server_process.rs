//! The server under test: one that runs already, or one started for this run on a fresh data folder.
//!
//! In: options. Out: addresses, tokens, a process id for CPU and memory. Always: a server started here is stopped here
//! and its data folder removed; its log is shown when it fails.

use crate::connect::{Target, Transport};
use crate::error::{BenchError, During};
use crate::metrics;
use crate::placement::Placement;
use crate::proc;
use crate::tokens::TokenSource;
use clap::Args;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_LINES_SHOWN: usize = 20;
/// The committed limits for load from one machine; they raise limits, they remove none.
const CONFIG: &str = include_str!("../server.yaml");

#[derive(Args)]
pub struct ServerArgs {
    /// Start this im-server on a fresh data folder with bench/server.yaml, and stop it at the end.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["key_file", "token_command", "server_pid"])]
    pub spawn_server: Option<PathBuf>,
    /// With --spawn-server: its configuration, in place of bench/server.yaml.
    #[arg(long, value_name = "FILE", requires = "spawn_server")]
    pub server_config: Option<PathBuf>,
    /// With --spawn-server: where its data folder goes; choose the disk to be measured.
    #[arg(long, default_value = ".")]
    pub folder: PathBuf,
    /// With --spawn-server: what the load rides on.
    #[arg(long, value_enum, default_value_t = Transport::Tcp, requires = "spawn_server", conflicts_with = "address")]
    pub transport: Transport,
    /// A running server: IP:PORT for TCP, ws://IP:PORT/ws for WebSocket. Several gateways, with commas: connections take
    /// them by turns, and what is counted of the server is counted at the first.
    #[arg(
        long,
        default_value = "127.0.0.1:6100",
        value_delimiter = ',',
        value_parser = Target::parse,
        conflicts_with = "spawn_server"
    )]
    pub address: Vec<Target>,
    /// A running server: its HTTP address, for counters.
    #[arg(long, default_value = "127.0.0.1:6102")]
    pub http: SocketAddr,
    /// A running server: sign tokens with this key, the file signing.key of its data folder.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A running server: a program that prints a token for the user named by its argument.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "key_file")]
    pub token_command: Option<PathBuf>,
    /// A running server: its process id; by default the one that listens on the port.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
}

impl ServerArgs {
    /// What the load will ride on.
    pub fn transport(&self) -> Transport {
        if self.spawn_server.is_some() { self.transport } else { self.address[0].transport() }
    }
}

pub struct Server {
    /// At least one; connection i goes to the i-th, by turns.
    targets: Vec<Target>,
    pub http: SocketAddr,
    pub tokens: TokenSource,
    /// `None`: on another machine, so CPU and memory are unknown.
    pub pid: Option<u32>,
    started: Option<Started>,
}

struct Started {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    pub fn of(args: &ServerArgs, placement: &Placement) -> Result<Self, BenchError> {
        match &args.spawn_server {
            Some(program) => Self::start(program, args, placement),
            None => Self::running(args),
        }
    }

    fn running(args: &ServerArgs) -> Result<Self, BenchError> {
        let tokens = match (&args.key_file, &args.token_command) {
            (Some(path), _) => TokenSource::from_key_file(path)?,
            (None, Some(program)) => TokenSource::Command(program.clone()),
            (None, None) => {
                let advice = "give --spawn-server, or --key-file or --token-command for a server that runs";
                return Err(BenchError::Setup(advice.to_owned()));
            }
        };
        let pid = match args.server_pid {
            None if args.address[0].socket.ip().is_loopback() => {
                Some(proc::listener_of(args.address[0].socket.port())?)
            }
            given => given,
        };
        Ok(Self { targets: args.address.clone(), http: args.http, tokens, pid, started: None })
    }

    fn start(program: &Path, args: &ServerArgs, placement: &Placement) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix("im-bench-")
            .tempdir_in(&args.folder)
            .during(format!("a data folder in {}", args.folder.display()))?;
        let config = folder.path().join("server.yaml");
        let text = match &args.server_config {
            Some(path) => std::fs::read_to_string(path).during(path.display().to_string())?,
            None => CONFIG.to_owned(),
        };
        std::fs::write(&config, text).during(config.display().to_string())?;
        let (tcp, websocket, http) = (free_address()?, free_address()?, free_address()?);
        let log = File::create(folder.path().join("server.log")).during("the server's log")?;
        let mut command = Command::new(program);
        command
            .args(["standalone", "--config"])
            .arg(&config)
            .env("IM_LISTEN__TCP", tcp.to_string())
            .env("IM_LISTEN__WEBSOCKET", websocket.to_string())
            .env("IM_LISTEN__HTTP", http.to_string())
            .env("IM_STORE__FOLDER", folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().during("the server's log")?)
            .stderr(log);
        end_with_parent(&mut command);
        // A child starts with its parent's binding; the load binds itself to its own CPU afterwards.
        placement.server_cpu.map_or(Ok(()), proc::pin_this_thread)?;
        let child = command.spawn().during(program.display().to_string())?;
        let pid = Some(child.id());
        let mut started = Started { child, folder };
        started.wait_until_ready(http)?;
        let tokens = TokenSource::from_key_file(&started.folder.path().join("data/signing.key"))?;
        let target = match args.transport {
            Transport::Tcp => tcp.to_string(),
            Transport::Ws => format!("ws://{websocket}/ws"),
        };
        let targets = vec![Target::parse(&target).map_err(BenchError::Setup)?];
        Ok(Self { targets, http, tokens, pid, started: Some(started) })
    }

    /// Where connection `serial` goes.
    pub fn target(&self, serial: usize) -> &Target {
        &self.targets[serial % self.targets.len()]
    }

    pub fn transport(&self) -> Transport {
        self.target(0).transport()
    }

    /// Stops a server that was started here. An end other than a clean one is an error.
    pub fn stop(mut self) -> Result<(), BenchError> {
        self.started.take().map_or(Ok(()), Started::stop)
    }
}

impl Started {
    fn wait_until_ready(&mut self, http: SocketAddr) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !metrics::ready(http) {
            if let Some(status) = self.child.try_wait().during("the server")? {
                return Err(self.failed(&format!("ended with {status} before it was ready")));
            }
            if Instant::now() > deadline {
                return Err(self.failed("was not ready in time"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn stop(mut self) -> Result<(), BenchError> {
        // SAFETY: a plain system call; the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.try_wait().during("the server")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(&format!("ended with {status} on SIGTERM"))),
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
        Err(self.failed("did not end on SIGTERM"))
    }

    fn failed(&self, how: &str) -> BenchError {
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
        BenchError::Setup(format!("the server {how}; its last words:\n{last}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server is told to end when this process does, however that happens.
fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only this system call is made, which touches no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// A port that was free a moment ago, on a loopback address of this process's own: on a shared one the thousands of clients
/// of a run before may take it in between.
fn free_address() -> Result<SocketAddr, BenchError> {
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high | 1, low, 1);
    TcpListener::bind((own, 0)).and_then(|listener| listener.local_addr()).during("a free port")
}
