//! A Redis server of one test's own, to be flushed, killed and stopped.
//!
//! In: nothing but the program `redis-server`. Out: a server on a free loopback port with a folder of its own. Always: it
//! ends with the value, and its folder goes with it.

use redis::{FromRedisValue, Value};
use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// For what a server does by itself, as copying another one.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct OwnServer {
    folder: TempDir,
    port: u16,
    child: Child,
    /// Held open, for the server writes its log to it.
    _log: BufReader<ChildStdout>,
}

impl OwnServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (child, log) = run(&folder, port);
        Self { folder, port, child, _log: log }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Without warning; what was not saved is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again, on the same port, with what the folder holds.
    pub fn restart(&mut self) {
        (self.child, self._log) = run(&self.folder, self.port);
    }

    /// STOP hangs it with all its connections open, CONT lets it go on.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub async fn command<T: FromRedisValue>(&self, words: &str) -> T {
        command(&self.url(), words).await
    }

    /// Waits until INFO holds `line`.
    pub async fn says(&self, line: &str) {
        let until = async {
            while !self.command::<String>("INFO").await.lines().any(|said| said == line) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("the server never said {line}"));
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &TempDir, port: u16) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed");
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ready to accept connections") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "redis-server ended at its start");
    }
    (child, log)
}

pub async fn command<T: FromRedisValue>(url: &str, words: &str) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.unwrap()
}

/// Removes every key that begins with `prefix`.
pub async fn remove(url: &str, prefix: &str) {
    let mut at = "0".to_owned();
    loop {
        let (next, keys): (String, Vec<String>) = command(url, &format!("SCAN {at} MATCH {prefix}* COUNT 1000")).await;
        if !keys.is_empty() {
            command::<Value>(url, &format!("DEL {}", keys.join(" "))).await;
        }
        if next == "0" {
            return;
        }
        at = next;
    }
}
