//! Without descriptors accepting pauses, and the connections that are open go on (F38). One test: the limit is the
//! process's.

#![allow(clippy::unwrap_used)]

mod kit;

use kit::{EVERY, Server, config};

#[test]
fn a_gateway_without_descriptors_serves_those_it_has_and_accepts_again_later() {
    for on in EVERY {
        let mut config = config(on);
        config.cores = 1;
        let server = Server::start(config);
        let mut alice = server.sign_in("alice");
        let waiting = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let before = limit_descriptors(None);
        // The client's socket exists; the server's would be one too many.
        let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        limit_descriptors(Some(used - 1));
        waiting.connect(&server.address().into()).unwrap();
        server.wait_for_metrics("accept fails", |m| m.sum(|c| c.accept_errors) > 0);
        alice.heartbeat();
        alice.expect_heartbeat();
        limit_descriptors(Some(before));
        server.sign_in_over(server.over(waiting.into()), "bob");
    }
}

/// Sets the soft limit, and answers the one before.
fn limit_descriptors(limit: Option<u64>) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid pointer to an rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) }, 0);
    let before = limits.rlim_cur;
    if let Some(limit) = limit {
        limits.rlim_cur = limit;
        // SAFETY: a valid pointer to an rlimit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
    }
    before
}
