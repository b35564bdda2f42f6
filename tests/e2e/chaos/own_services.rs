//! Kafka, Redis, MySQL and MongoDB of one test's own, to be killed, stopped and flushed while others work undisturbed.
//!
//! In: `scripts/services`, a folder. Out: running services on free ports. Always: begins with empty data; one test at a time
//! has the folder; everything is stopped and the data are gone with the value.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Outside of the project: PostgreSQL's user must be able to come here. `IM_CHAOS_FOLDER` names another, for a run beside one
/// that has this.
const FOLDER: &str = "/var/tmp/im-server-chaos";
const NAMES: [&str; 6] = ["KAFKA", "KAFKA_CONTROLLER", "REDIS", "MARIADB", "POSTGRESQL", "FERRETDB"];
const REDIS_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Kafka,
    Redis,
    Mysql,
    /// FerretDB, in MongoDB's place.
    Mongo,
    /// What FerretDB stores in.
    Postgresql,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Redis => "redis",
            Self::Mysql => "mariadb",
            Self::Mongo => "ferretdb",
            Self::Postgresql => "postgresql",
        }
    }

    fn port_name(self) -> String {
        self.name().to_uppercase()
    }
}

pub struct OwnServices {
    folder: PathBuf,
    variables: Vec<(String, String)>,
    /// Nobody else has the folder.
    _lock: File,
}

impl OwnServices {
    /// Clients of Kafka come back by the port that it names itself: `kafka_advertised`.
    pub fn start(kafka_advertised: u16) -> Self {
        let folder = std::env::var_os("IM_CHAOS_FOLDER").map_or_else(|| FOLDER.into(), PathBuf::from);
        std::fs::create_dir_all(&folder).unwrap();
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let free = NAMES.map(|name| (name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()));
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port().to_string();
        let mut variables: Vec<(String, String)> =
            free.iter().map(|(name, listener)| (format!("IM_SERVICES_{name}_PORT"), port(listener))).collect();
        variables.push(("IM_SERVICES_KAFKA_ADVERTISED_PORT".to_owned(), kafka_advertised.to_string()));
        variables.push(("IM_SERVICES_FOLDER".to_owned(), folder.display().to_string()));
        drop(free);
        let services = Self { folder, variables, _lock: lock };
        // What an earlier run left, if it was killed.
        services.run(&["down"]);
        services.run(&["reset"]);
        services.run(&["up"]);
        services
    }

    fn run(&self, arguments: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let output = Command::new(script).args(arguments).envs(self.variables.clone()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/services {}: {said}", arguments.join(" "));
    }

    pub fn address(&self, service: Service) -> SocketAddr {
        let name = format!("IM_SERVICES_{}_PORT", service.port_name());
        let (_, port) = self.variables.iter().find(|(variable, _)| *variable == name).unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()))
    }

    pub fn start_again(&self, service: Service) {
        self.run(&["start", service.name()]);
    }

    pub fn stop(&self, service: Service) {
        self.run(&["stop", service.name()]);
    }

    pub fn kill9(&self, service: Service) {
        self.run(&["kill", service.name()]);
    }

    pub fn pause(&self, service: Service) {
        self.run(&["pause", service.name()]);
    }

    pub fn resume(&self, service: Service) {
        self.run(&["resume", service.name()]);
    }

    pub fn flush_redis(&self) {
        self.redis("FLUSHALL");
    }

    /// What Redis holds now is what it begins with after the next start.
    pub fn save_redis(&self) {
        self.redis("SAVE");
    }

    /// Redis begins with nothing again.
    pub fn forget_redis_snapshot(&self) {
        std::fs::remove_file(self.folder.join("data/redis/dump.rdb")).unwrap();
    }

    fn redis(&self, command: &str) {
        let mut stream = TcpStream::connect(self.address(Service::Redis)).unwrap();
        stream.set_read_timeout(Some(REDIS_ANSWERS_WITHIN)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n", "redis did not {command}");
    }
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        let stop = |arguments: &[&str]| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
            let _ = Command::new(script).args(arguments).envs(self.variables.clone()).output();
        };
        stop(&["down"]);
        stop(&["reset"]);
    }
}
