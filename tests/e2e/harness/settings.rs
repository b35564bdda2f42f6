//! How one process differs from what a user starts: its program, its configuration, its limits.
//!
//! In: what a test asks for. Out: variables, arguments and shell limits for a [`Launch`](super::process::Launch). Always: what is not asked for
//! is as the tests' clients need it.

use super::process::Role;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The binary under test: this build's, or that of `IM_SERVER_BIN` (a build with a planted bug).
pub fn binary() -> PathBuf {
    std::env::var_os("IM_SERVER_BIN").map_or_else(|| env!("CARGO_BIN_EXE_im-server").into(), PathBuf::from)
}

/// Of an earlier version, in a run that has two (`scripts/upgrade`).
#[cfg(feature = "services")]
fn binary_before() -> Option<PathBuf> {
    std::env::var_os("IM_SERVER_BIN_BEFORE").map(PathBuf::from)
}

/// How a server differs from the default. Cheap to clone, so that a restart can use it again.
#[derive(Clone, Default)]
pub struct Settings {
    /// Another program than [`binary`].
    #[cfg(feature = "services")]
    program: Option<PathBuf>,
    pub environment: BTreeMap<String, String>,
    /// `ulimit -n` of the process, or another option.
    descriptors_max: Option<(&'static str, u32)>,
    /// No file of the process grows beyond it: writes fail as on a full disk.
    file_kib_max: Option<u32>,
    /// Instead of the role's command.
    pub arguments: Option<Vec<String>>,
    /// Runs the process as this user id.
    pub user_id: Option<u32>,
}

impl Settings {
    /// Room for a test's clients, which all come from one address and sign in at once, and short heartbeats.
    pub fn for_tests() -> Self {
        let settings = Self::default()
            .with("IM_GATEWAY__CORES", "2")
            .with("IM_GATEWAY__HEARTBEAT_INTERVAL_MS", "300")
            .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "30000")
            .with("IM_GATEWAY__ACCEPT_RATE_PER_ADDRESS_PER_S", "100000")
            .with("IM_GATEWAY__ACCEPT_BURST_PER_ADDRESS", "100000")
            .with("IM_GATEWAY__UNAUTHENTICATED_PER_ADDRESS_MAX", "100000")
            .with("IM_GATEWAY__COMMAND_RATE_PER_S", "100000")
            .with("IM_GATEWAY__COMMAND_BURST", "100000")
            .with("IM_LOGIC__SEND_RATE_PER_USER_PER_S", "100000")
            .with("IM_LOGIC__SEND_BURST_PER_USER", "100000")
            .with("IM_LOGIC__PARTITIONS", "4")
            .with("IM_LOG__LEVEL", "info");
        match std::env::var("IM_TEST_DRIVER") {
            Ok(driver) => settings.with("IM_GATEWAY__DRIVER", &driver),
            Err(_) => settings,
        }
    }

    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// The other version, in a run that has two.
    #[cfg(feature = "services")]
    pub fn of_other_version(mut self) -> Self {
        self.program = if self.program.is_some() { None } else { binary_before() };
        self
    }

    pub fn binary(&self) -> PathBuf {
        #[cfg(feature = "services")]
        if let Some(program) = &self.program {
            return program.clone();
        }
        binary()
    }

    pub fn descriptors_max(mut self, limit: u32) -> Self {
        self.descriptors_max = Some(("-n", limit));
        self
    }

    /// The process may raise it.
    pub fn soft_descriptors_max(mut self, limit: u32) -> Self {
        self.descriptors_max = Some(("-Sn", limit));
        self
    }

    pub fn file_kib_max(mut self, limit: u32) -> Self {
        self.file_kib_max = Some(limit);
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
        self
    }

    pub fn user_id(mut self, id: u32) -> Self {
        self.user_id = Some(id);
        self
    }

    /// Shell commands that set the limits of a process.
    pub fn limits(&self, role: Role) -> String {
        let descriptors = self.descriptors_max.filter(|_| role != Role::Logic);
        let descriptors = descriptors.map(|(kind, limit)| format!("ulimit {kind} {limit}; ")).unwrap_or_default();
        // In blocks of 512 bytes. A write beyond it is an error and no signal.
        let files = self.file_kib_max.map(|kib| format!("trap '' XFSZ; ulimit -f {}; ", kib * 2)).unwrap_or_default();
        descriptors + &files
    }
}
