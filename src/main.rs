//! The command line of im-server.
//!
//! In: arguments, a configuration, signals. Out: a running role or one answer on stdout. Always: errors are one clear line on
//! stderr and an exit code: 2 for a wrong command line or configuration, 3 for a port in use or not ours to open, 4 for a
//! data folder that is locked, not writable or of a newer format, 5 for damaged data, 1 for the rest.

use clap::Parser as _;
use im_server::command_line::{Arguments, Command, ConfigCommand};
use im_server::config::{self, Config, ConfigError};
use im_server::{exit, restore, standalone, tokens};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        Command::Config { what } => {
            let text = match what {
                ConfigCommand::Print => load()?.print(),
                ConfigCommand::Check => load().map(|_| "ok\n".to_owned())?,
                ConfigCommand::Schema => format!("{:#}\n", config::schema()),
                ConfigCommand::Env => config::variables(),
            };
            print!("{text}");
            Ok(())
        }
        Command::Restore => {
            print!("{}", restore::run(&load()?)?);
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
