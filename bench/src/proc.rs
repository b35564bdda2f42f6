//! What the kernel says of a process: CPU time, memory, the listener of a port; and where this thread may run.
//!
//! In: a process id, from `/proc`. Out: figures. Always: CPU time is utime + stime of all threads of the process,
//! which the kernel hands out in steps of 10 ms: measure over a second or more.

use crate::error::{BenchError, During};
use std::fs;
use std::time::Duration;

/// `USER_HZ`: the unit of times in `/proc/PID/stat`, fixed by the Linux ABI.
const TICKS_PER_S: u64 = 100;
const TCP_LISTEN: &str = "0A";

/// Binds the calling thread, and the threads and processes that it starts from now on, to one CPU.
pub fn pin_this_thread(cpu: usize) -> Result<(), BenchError> {
    monoio::utils::bind_to_cpu_set([cpu])
        .map_err(|error| BenchError::Setup(format!("cannot bind to CPU {cpu}: {error}")))
}

/// User and system time of all threads of `pid` since its start.
pub fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).during(&path)?;
    cpu_time_of(&stat).ok_or_else(|| BenchError::Setup(format!("{path} reads unlike any Linux known here")))
}

/// The program's name may hold spaces and brackets, so fields are counted behind the last bracket.
fn cpu_time_of(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}

/// CPU time of the calling thread, exact.
pub fn thread_cpu_time() -> Result<Duration, BenchError> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).during(path)?;
    let on_cpu_ns = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    on_cpu_ns.map(Duration::from_nanos).ok_or_else(|| BenchError::Setup(format!("{path} is empty")))
}

/// Resident memory of `pid`.
pub fn rss_bytes(pid: u32) -> Result<u64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).during(&path)?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| BenchError::Setup(format!("process {pid} has ended")))
}

/// The process of this machine that listens on a TCP port.
pub fn listener_of(port: u16) -> Result<u32, BenchError> {
    let inode = listening_inode(port)
        .ok_or_else(|| BenchError::Setup(format!("nothing on this machine listens on TCP port {port}")))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").during("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Other users' processes cannot be read; the server asked about is ours.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        if targets.any(|target| target.as_os_str() == wanted.as_str()) {
            return Ok(pid);
        }
    }
    Err(BenchError::Setup(format!("the process that listens on port {port} is hidden; give --server-pid")))
}

fn listening_inode(port: u16) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).find_map(|line| inode_of_listener(line, port))
}

/// The socket inode of a line of `/proc/net/tcp`, if it listens on `port`.
fn inode_of_listener(line: &str, port: u16) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local_port = fields.next()?.rsplit_once(':')?.1;
    let state = fields.nth(1)?;
    let listens = state == TCP_LISTEN && u16::from_str_radix(local_port, 16) == Ok(port);
    if listens { fields.nth(5)?.parse().ok() } else { None }
}

/// Raises the limit of open files as far as this process may. Returns the limit.
pub fn raise_open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or fill the struct that lives across them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_program_name_with_spaces_and_brackets() {
        let stat = "7 (im) server) S 1 7 7 0 -1 4194560 100 0 0 0 123 77 0 0 20 0 3 0 5 6 7";
        assert_eq!(cpu_time_of(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time_of("7 (im) S 1"), None);
    }

    #[test]
    fn only_the_listening_socket_of_the_port_counts() {
        let listens =
            "   0: 0100007F:17D4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        let connected = listens.replace(" 0A ", " 01 ");
        assert_eq!(inode_of_listener(listens, 6100), Some(4711));
        assert_eq!(inode_of_listener(&connected, 6100), None);
        assert_eq!(inode_of_listener(listens, 6101), None);
        assert_eq!(inode_of_listener("  sl  local_address rem_address   st", 6100), None);
    }

    #[test]
    fn a_listener_of_ours_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listener_of(port).unwrap(), std::process::id());
    }
}
