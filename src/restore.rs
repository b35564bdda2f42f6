//! `im-server restore`: makes a backup that was copied into the data folder serve again.
//!
//! In: the configuration (`store.folder`), no server running on it. Out: what was checked, the old and the new epoch, and
//! what clients will see. Always: a store that fails a check is refused.

use crate::config::Config;
use crate::exit::Failure;
use crate::standalone;
use im_storage::embedded::{self, Restored};
use std::fmt::Write as _;

pub fn run(config: &Config) -> Result<String, Failure> {
    let restored = embedded::restore(&standalone::open_options(config));
    let restored = restored.map_err(|error| standalone::open_failure(config, error))?;
    Ok(text(config, &restored))
}

fn text(config: &Config, restored: &Restored) -> String {
    let Restored { epoch_before, epoch, logs, entries, commit, acked } = restored;
    let mut out = format!("Restored {}\n", config.store.folder.display());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "  checked  {entries} entries in {logs} logs; every checksum is right");
    let _ = writeln!(out, "  epoch    {} -> {}", epoch_before.0, epoch.0);
    if acked > commit {
        let _ = writeln!(
            out,
            "  older    this store ends at commit {commit}, and its folder knew of commit {acked}: what was acked in between \
             is not in this copy"
        );
    }
    out.push_str(
        "Start the server. Each client's cursors are answered RESET once; it then reads the restored history anew, and sends \
         again what had no answer.\n",
    );
    out
}
