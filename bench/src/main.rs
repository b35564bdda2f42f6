//! `im-bench`: load on an im-server, with every message verified.
//!
//! In: a subcommand and its options. Out: a table, JSON if asked, an exit code: 0 all promises kept, 1 a promise
//! broken, 2 the run could not be made. Always: one thread makes the load, so its CPU can be bound and read.

mod clock;
mod conn;
mod connect;
mod error;
mod fleet;
mod floor;
mod group;
mod in_flight;
mod link;
mod measure;
mod metrics;
mod pair;
mod payload;
mod placement;
mod proc;
mod progress;
mod report;
mod run;
mod server_process;
mod signal;
mod tokens;
mod traffic;
mod verify;

use clap::{Parser, Subcommand};
use error::{BenchError, During as _};
use report::Report;
use run::Outcome;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RING_ENTRIES: u32 = 4096;

#[derive(Parser)]
#[command(name = "im-bench", version, about = "Puts load on an im-server and verifies every message it measures.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Also write the report as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// What a connection costs: open, sign in and hold N of them.
    Conn(conn::ConnArgs),
    /// One-to-one messages in N direct conversations.
    Pair(pair::PairArgs),
    /// Fan-out: one member of a group sends, all others receive.
    Group(group::GroupArgs),
    /// What this machine can do at best: bare echo and fan-out servers, and a bare append+fdatasync loop.
    Floor(floor::FloorArgs),
    /// One of the floor's bare servers, which im-bench starts by itself.
    #[command(name = floor::child::SUBCOMMAND, hide = true)]
    FloorServer {
        /// What it does with a frame.
        #[arg(long)]
        kind: floor::server::Kind,
        /// What the frames ride on.
        #[arg(long)]
        transport: connect::Transport,
        /// Run on this CPU only.
        #[arg(long)]
        cpu: Option<usize>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("im-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), BenchError> {
    let Outcome { rows, violated } = match cli.command {
        Command::FloorServer { kind, transport, cpu } => {
            cpu.map_or(Ok(()), proc::pin_this_thread)?;
            return block_on(floor::server::run(kind, transport))?;
        }
        Command::Floor(args) => Outcome { rows: block_on(floor::run(&args))??, violated: None },
        Command::Conn(args) => block_on(conn::run(&args))??,
        Command::Pair(args) => block_on(pair::run(&args))??,
        Command::Group(args) => block_on(group::run(&args))??,
    };
    let report = Report::new(rows);
    report.print();
    cli.json.map_or(Ok(()), |path| report.write_json(&path))?;
    violated.map_or(Ok(()), |summary| Err(BenchError::Violated(summary)))
}

/// Runs `future` on this thread: io_uring, or epoll where the kernel has none.
fn block_on<F: Future>(future: F) -> Result<F::Output, BenchError> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new()
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
        .during("the load's event loop")?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// The commands and options below `command` that say nothing of themselves.
    fn silent(command: &clap::Command) -> Vec<String> {
        let name = command.get_name();
        let options = command.get_arguments().filter(|option| option.get_help().is_none());
        let mut silent: Vec<String> = options.map(|option| format!("{name} {option}")).collect();
        for below in command.get_subcommands() {
            if below.get_about().is_none() {
                silent.push(format!("{name} {}", below.get_name()));
            }
            silent.extend(self::silent(below));
        }
        silent
    }

    #[test]
    fn every_command_and_option_has_a_line_of_help() {
        assert_eq!(silent(&Cli::command()), [""; 0]);
    }
}
