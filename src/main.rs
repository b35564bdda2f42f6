//! The command line of im-server.
//!
//! In: arguments, a configuration, signals. Out: a running role or one answer on stdout. Always: errors are one clear line on
//! stderr, JSON where the log is, and an exit code: 2 for a wrong command line or configuration, 3 for a port in use or not
//! ours to open, 4 for a data folder that is locked, not writable or of a newer format, 5 for damaged data, 6 for a service
//! that is away or unsafe, 1 for the rest.

use clap::Parser as _;
use im_server::command_line::{Arguments, Command, ConfigCommand};
use im_server::config::{self, Config, ConfigError, Driver};
use im_server::{account, exit, logging, restore, standalone, tokens};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::tell(&failure);
            failure.code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), exit::Failure> {
    let Arguments { config, driver, command } = arguments;
    let load = || load(config.as_deref(), driver);
    match command.unwrap_or(Command::Standalone) {
        Command::Standalone => standalone::run(&load()?),
        Command::Gateway => distributed::gateway(&load()?),
        Command::Logic => distributed::logic(&load()?),
        Command::Migrate { what } => distributed::migrate(&load()?, what),
        Command::Doctor => distributed::doctor(&load()?),
        Command::Token { user, device, valid_s } => {
            println!("{}", tokens::issue(&load()?, &user, device.as_deref(), valid_s)?);
            Ok(())
        }
        Command::Account { distributed, what } => print(&account::run(&load()?, &what, distributed)?),
        Command::Config { what } => {
            let text = match what {
                ConfigCommand::Print => load()?.print(),
                ConfigCommand::Check => distributed::check(&load()?).map(|()| "ok\n".to_owned())?,
                ConfigCommand::Schema => format!("{:#}\n", config::schema()),
                ConfigCommand::Env => config::variables(),
            };
            print(&text)
        }
        Command::Restore => print(&restore::run(&load()?)?),
        Command::Version => {
            println!("im-server {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Whoever reads may have seen enough, as `head` has.
fn print(text: &str) -> Result<(), exit::Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(exit::Failure::Other(error.to_string())),
        _ => Ok(()),
    }
}

#[cfg(feature = "distributed")]
mod distributed {
    use super::Config;
    use super::exit::Failure;
    pub use im_server::doctor::run as doctor;
    pub use im_server::gateway_role::run as gateway;
    pub use im_server::logic_role::run as logic;
    pub use im_server::migrate::run as migrate;

    pub fn check(config: &Config) -> Result<(), Failure> {
        config.check_services()
    }
}

#[cfg(not(feature = "distributed"))]
mod distributed {
    use super::Config;
    use super::exit::{self, Failure};
    use im_server::command_line::MigrateCommand;

    /// Nothing here reads the sections of the services.
    pub fn check(_: &Config) -> Result<(), Failure> {
        Ok(())
    }

    fn left_out() -> Result<(), Failure> {
        Err(Failure::Usage(exit::STANDALONE_ONLY.to_owned()))
    }

    pub fn gateway(_: &Config) -> Result<(), Failure> {
        left_out()
    }

    pub fn logic(_: &Config) -> Result<(), Failure> {
        left_out()
    }

    pub fn migrate(_: &Config, _: MigrateCommand) -> Result<(), Failure> {
        left_out()
    }

    pub fn doctor(_: &Config) -> Result<(), Failure> {
        left_out()
    }
}

fn load(file: Option<&std::path::Path>, driver: Option<Driver>) -> Result<Config, ConfigError> {
    let mut config = Config::load(file, std::env::vars())?;
    config.gateway.driver = driver.unwrap_or(config.gateway.driver);
    Ok(config)
}
