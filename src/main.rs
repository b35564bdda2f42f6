//! The command line of im-server.
//!
//! In: arguments, a configuration, signals. Out: a running role or one answer on stdout. Always: errors are one clear line on
//! stderr and an exit code: 2 for a wrong command line or configuration, 3 for a port in use or not ours to open, 4 for a
//! data folder that is locked, not writable or of a newer format, 5 for damaged data, 1 for the rest.

use clap::{Parser, Subcommand};
use im_server::config::{Config, ConfigError, Driver};
use im_server::{exit, standalone, tokens};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An instant-messaging server for your own apps. Without a command it runs `standalone`.
#[derive(Parser)]
#[command(version, disable_version_flag = true)]
struct Arguments {
    /// YAML or JSON; see `im-server config print` for every key
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve everything from this one process, with its own durable store (the default)
    Standalone {
        /// Override gateway.driver
        #[arg(long)]
        driver: Option<Driver>,
    },
    /// Print a token for a user, signed with the key of the data folder
    Token {
        /// Whom the token signs in
        #[arg(long)]
        user: String,
        /// Bind the token to this device
        #[arg(long)]
        device: Option<String>,
        /// How long it is valid
        #[arg(long, default_value_t = 24 * 3600, value_name = "SECONDS")]
        valid_s: u64,
    },
    /// Show or check the configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Print the version
    Version,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every key with its comment and its effective value
    Print,
    /// Say "ok", or what is wrong
    Check,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("im-server: {failure}");
            failure.code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), exit::Failure> {
    let load = || load(arguments.config.as_deref());
    match arguments.command.unwrap_or(Command::Standalone { driver: None }) {
        Command::Standalone { driver } => {
            let mut config = load()?;
            config.gateway.driver = driver.unwrap_or(config.gateway.driver);
            standalone::run(&config)
        }
        Command::Token { user, device, valid_s } => {
            println!("{}", tokens::issue(&load()?, &user, device.as_deref(), valid_s)?);
            Ok(())
        }
        Command::Config { what: ConfigCommand::Print } => {
            print!("{}", load()?.print());
            Ok(())
        }
        Command::Config { what: ConfigCommand::Check } => {
            load()?;
            println!("ok");
            Ok(())
        }
        Command::Version => {
            println!("im-server {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn load(file: Option<&std::path::Path>) -> Result<Config, ConfigError> {
    Config::load(file, std::env::vars())
}
