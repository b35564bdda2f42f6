//! A floor server as a child process, on its own CPU.
//!
//! In: which server, over what, which CPU. Out: its address and process id. Always: the child ends with this value, and with this
//! process however that ends: its standard input closes.

use super::server::Kind;
use crate::connect::Transport;
use crate::error::{BenchError, During};
use crate::proc;
use clap::ValueEnum as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The hidden subcommand that runs a floor server.
pub const SUBCOMMAND: &str = "floor-server";

pub struct FloorServer {
    child: Child,
    pub address: SocketAddr,
}

impl FloorServer {
    pub fn start(kind: Kind, transport: Transport, cpu: Option<usize>) -> Result<Self, BenchError> {
        let program = std::env::current_exe().during("the path of im-bench")?;
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).args(["--transport", transport.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(name) = kind.to_possible_value() {
            command.args(["--kind", name.get_name()]);
        }
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let mut child = command.spawn().during("starting the floor server")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).during("the floor server's address")?;
        }
        let address =
            line.trim().parse().map_err(|_| BenchError::Setup("the floor server did not start".to_owned()))?;
        Ok(Self { child, address })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn rss_bytes(&self) -> Result<u64, BenchError> {
        proc::rss_bytes(self.pid())
    }
}

impl Drop for FloorServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
