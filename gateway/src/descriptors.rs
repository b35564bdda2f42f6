//! How many files and connections the process may have open.
//!
//! In: how many connections the gateway may hold. Out: the process's own limit, as high as it may set it. Always: the
//! limit is never lowered; where it stays too low for the connections, the log says so once, and accepting pauses when it
//! is met.

use crate::planted::{Bug, planted};

/// Listeners, rings, files, services, other roles, HTTP.
const BESIDE_CONNECTIONS: u64 = 512;

/// Shells, systemd and containers begin with a soft limit of 1,024, for programs that use `select`; nothing here does.
pub fn allow(connections_max: usize) {
    if planted(Bug::SoftLimitKept) {
        return;
    }
    match raise() {
        Ok(limit) if limit < connections_max as u64 + BESIDE_CONNECTIONS => tracing::warn!(
            limit,
            connections_max,
            "fewer files may be open than gateway.connections_max; raise the hard limit of open files (ulimit -Hn, LimitNOFILE)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// As high as a process here may set its limit, where that is too low for so many connections.
pub fn too_low_for(connections_max: usize) -> std::io::Result<Option<u64>> {
    Ok(Some(limits()?.rlim_max).filter(|limit| *limit < connections_max as u64 + BESIDE_CONNECTIONS))
}

fn limits() -> std::io::Result<libc::rlimit> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid pointer to an rlimit, used during the call only.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(limits)
}

/// The soft limit to the hard one; answers what it is now.
fn raise() -> std::io::Result<u64> {
    let mut limits = limits()?;
    if limits.rlim_cur < limits.rlim_max {
        limits.rlim_cur = limits.rlim_max;
        // SAFETY: as above.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(limits.rlim_cur)
}
