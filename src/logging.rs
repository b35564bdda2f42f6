//! Structured logs on stderr: one line per event, JSON or for people.

use crate::config::{Log, LogFormat};
use crate::exit::Failure;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::EnvFilter;

static IS_JSON: AtomicBool = AtomicBool::new(false);

pub fn start(config: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| Failure::Usage(format!("log.level: {error}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Pretty => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    started.map_err(|error| Failure::Other(format!("logging: {error}")))?;
    IS_JSON.store(matches!(config.format, LogFormat::Json), Ordering::Relaxed);
    Ok(())
}

/// The process's last words on stderr, in the form of its log.
pub fn tell(failure: &Failure) {
    if IS_JSON.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{failure}");
    } else {
        eprintln!("im-server: {failure}");
    }
}
