//! A MariaDB server of one test's own, to be killed and to be replaced by another.
//!
//! In: nothing but the programs `mariadbd` and `mariadb-install-db`. Out: a server on a free loopback port with a folder of
//! its own. Always: it ends with the value, and its folder goes with it.

use im_storage::mysql::MysqlOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// For the start of a server.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian keeps the server.
const PATHS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub struct OwnServer {
    folder: TempDir,
    pub address: String,
    /// Servers that replicate from one another have different ones.
    id: u32,
    child: Child,
}

impl OwnServer {
    /// With the database `im`.
    pub async fn start(id: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installed = Command::new("mariadb-install-db")
            .env("PATH", PATHS)
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("mariadb-install-db is installed");
        assert!(installed.success());
        let init =
            "CREATE DATABASE im; CREATE USER im@'127.0.0.1' IDENTIFIED BY 'im'; GRANT ALL ON *.* TO im@'127.0.0.1';";
        std::fs::write(folder.path().join("init.sql"), init.replace("; ", ";\n")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = run(&folder, &address, id, true);
        let server = Self { folder, address, id, child };
        server.ready().await;
        server
    }

    pub fn options(&self) -> MysqlOptions {
        options(&self.address)
    }

    /// Without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again, on the same port, with what the folder holds.
    pub async fn restart(&mut self) {
        self.child = run(&self.folder, &self.address, self.id, false);
        self.ready().await;
    }

    pub async fn run(&self, statement: String) {
        let mut connection = MySqlConnection::connect(&self.options().url).await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }

    async fn ready(&self) {
        let until = async {
            while MySqlConnection::connect(&self.options().url).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("no server came up: {}", log()));
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn options(address: &str) -> MysqlOptions {
    MysqlOptions { url: format!("mysql://im:im@{address}/im"), connections_max: 4, allow: Vec::new() }
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn run(folder: &TempDir, address: &str, id: u32, is_first: bool) -> Child {
    let log = File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new("mariadbd");
    command.env("PATH", PATHS).current_dir(folder.path()).stdout(Stdio::null()).stderr(log);
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--skip-log-bin"]);
    command.args(["--socket=own.sock", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=16M"]);
    command.arg(format!("--port={}", address.rsplit_once(':').unwrap().1)).arg(format!("--server-id={id}"));
    command.arg(format!("--user={}", user())).arg(format!("--datadir={}", folder.path().join("data").display()));
    if is_first {
        command.arg(format!("--init-file={}", folder.path().join("init.sql").display()));
    }
    command.spawn().expect("mariadbd is installed")
}
