//! How the process starts, refuses to start, and ends: the exit code, the text, and data that nobody touched.

use crate::harness::calls::{direct, message_ids};
use crate::harness::http::try_get;
use crate::harness::raw::{Got, Raw, send_to_user, within};
use crate::harness::server::{Addresses, Folder, Server, Settings, binary};
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::client::{ClientFrame, CloseCode, ServerFrame};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "fault-points")]
use std::time::Duration;

fn any_port() -> Addresses {
    Addresses::any_port([127, 0, 0, 1].into())
}

/// Every file below `folder` with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A folder with some messages in it, closed in good order.
async fn used_folder() -> Folder {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 0..50 {
        ann.message(send_to_user("bob", &format!("m{number}"), &"text".repeat(200))).await;
    }
    server.terminate();
    assert!(server.wait().success());
    server.folder()
}

/// The start is refused with this code and a text that holds these words; the data stays as it is.
fn refused(folder: &Folder, settings: &Settings, addresses: Addresses, code: i32, words: &[&str]) {
    let before = folder.data().exists().then(|| contents(&folder.data()));
    let (status, text) = Server::refuse_to_start(folder, settings, addresses);
    assert_eq!(status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    let after = folder.data().exists().then(|| contents(&folder.data()));
    assert!(before.is_none() || before == after, "the data was touched");
}

#[tokio::test]
async fn a_port_in_use_is_exit_code_3_and_harms_neither_server() {
    let first = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&first, "ann", "phone").await;
    let folder = used_folder().await;
    let settings = Settings::for_tests();
    let Server { tcp, websocket, http, .. } = first;
    let taken = [
        ("listen.tcp", tcp, Addresses { tcp, ..any_port() }),
        ("listen.websocket", websocket, Addresses { websocket, ..any_port() }),
        ("listen.http", http, Addresses { http, ..any_port() }),
    ];
    for (key, address, addresses) in taken {
        refused(&folder, &settings, addresses, 3, &[key, &address.to_string()]);
    }
    ann.message_to_user("bob", "m1").await;
}

#[test]
fn one_port_for_two_listeners_is_exit_code_3() {
    let folder = Folder::new();
    // Free again at once, and nobody is known to take it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let twice =
        [Addresses { tcp: free, websocket: free, ..any_port() }, Addresses { tcp: free, http: free, ..any_port() }];
    for addresses in twice {
        refused(&folder, &Settings::for_tests(), addresses, 3, &["listen.", &free.to_string()]);
    }
    assert!(!folder.data().exists(), "nothing was made");
}

#[tokio::test]
async fn a_folder_in_use_is_exit_code_4_and_the_first_server_goes_on() {
    let first = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&first, "ann", "phone").await;
    let (status, text) = Server::refuse_to_start(&first.folder(), &Settings::for_tests(), any_port());
    assert_eq!(status.code(), Some(4), "{text}");
    assert!(text.contains(&first.folder().data().display().to_string()), "{text}");
    ann.message_to_user("bob", "m1").await;
}

#[test]
fn a_folder_that_cannot_be_made_is_exit_code_4() {
    let folder = Folder::new();
    std::fs::write(folder.data(), "a file where the folder should be").unwrap();
    let below = folder.data().join("data").display().to_string();
    let settings = Settings::for_tests().with("IM_STORE__FOLDER", &below);
    let (status, text) = Server::refuse_to_start(&folder, &settings, any_port());
    assert_eq!(status.code(), Some(4), "{text}");
    assert!(text.contains(&below), "{text}");
}

#[tokio::test]
async fn a_folder_that_is_not_writable_is_exit_code_4() {
    const NOBODY: u32 = 65534;
    let folder = used_folder().await;
    // Root writes anywhere, so the server runs as somebody else.
    let settings = match is_root() {
        true => Settings::for_tests().user_id(NOBODY),
        false => Settings::for_tests(),
    };
    let permit = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    permit(folder.path(), 0o755);
    for path in contents(&folder.data()).keys() {
        permit(path, 0o444);
    }
    permit(&folder.data(), 0o555);
    refused(&folder, &settings, any_port(), 4, &["data", "writ"]);
    permit(&folder.data(), 0o755);
}

fn is_root() -> bool {
    // SAFETY: `geteuid` takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[tokio::test]
async fn damaged_data_is_exit_code_5_and_is_not_mended_by_guessing() {
    let folder = used_folder().await;
    let (path, bytes) = contents(&folder.data()).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    // The first bytes tell what kind of file it is.
    let mut damaged = bytes.clone();
    damaged[..64].iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, &damaged).unwrap();
    refused(&folder, &Settings::for_tests(), any_port(), 5, &[&folder.data().display().to_string(), "damaged"]);

    std::fs::write(&path, &bytes).unwrap();
    let server = Server::start_in(folder, Settings::for_tests());
    let mut bob = Raw::device(&server, "bob", "phone").await;
    assert_eq!(bob.sync().await.conversations[0].head_seq, 50, "the mended file serves again");
}

#[cfg(feature = "fault-points")]
mod fault_points {
    use super::*;

    const POLL: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_worker_that_panics_ends_the_process_with_exit_code_1() {
        let settings =
            Settings::for_tests().with("IM_FAULT_POINT", "entry_log.append.before:1").with("IM_FAULT_PANICS", "1");
        let mut server = Server::start_in(Folder::new(), settings);
        let mut ann = Raw::device(&server, "ann", "phone").await;
        ann.send(Command::Send(send_to_user("bob", "m1", "x"))).await;
        assert_eq!(server.wait().code(), Some(1));
        assert!(server.log().contains("im-server: a worker ended by itself"), "{}", server.log());

        server.set(Settings::for_tests());
        server.restart();
        let mut ann = Raw::device(&server, "ann", "phone").await;
        assert_eq!(ann.message_to_user("bob", "m1").await.seq, 1);
    }

    #[tokio::test]
    async fn sigterm_waits_until_what_was_taken_is_stored() {
        const QUEUED: u64 = 20;
        let folder = Folder::new();
        let stalled = folder.path().join("stalled");
        let settings = Settings::for_tests()
            .with("IM_LOGIC__PARTITIONS", "1")
            .with("IM_FAULT_POINT", "entry_log.append.before:1")
            .with("IM_FAULT_ARMED", &stalled.display().to_string())
            .with("IM_FAULT_HANGS", "1");
        let mut server = Server::start_in(folder, settings);
        let mut ann = Raw::device(&server, "ann", "phone").await;
        std::fs::write(&stalled, "").unwrap();
        ann.send(Command::Send(send_to_user("bob", "first", "x"))).await;
        // Counted before the store is asked, which does not answer.
        becomes(&server, "im_logic_appends_total", 1.0).await;
        for number in 0..QUEUED {
            ann.send(Command::Send(send_to_user("bob", &format!("m{number}"), "x"))).await;
        }
        becomes(&server, "im_queue_waiting", QUEUED as f64).await;
        server.terminate();
        let finishing = async {
            while !server.log().contains("finishing what was taken") {
                tokio::time::sleep(POLL).await;
            }
        };
        within("the queue is closed", finishing).await;
        std::fs::remove_file(&stalled).unwrap();
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());

        server.restart();
        let mut bob = Raw::device(&server, "bob", "phone").await;
        assert_eq!(bob.sync().await.conversations[0].head_seq, 1 + QUEUED);
    }

    async fn becomes(server: &Server, metric: &str, value: f64) {
        let reached = async {
            while server.metric(metric) != Some(value) {
                tokio::time::sleep(POLL).await;
            }
        };
        within(metric, reached).await;
    }

    #[tokio::test]
    async fn a_folder_of_a_newer_format_is_exit_code_4_and_stays_as_it_is() {
        let mut server = Server::start(Settings::for_tests().with("IM_FAULT_STORE_FORMAT", "4000"));
        let mut ann = Raw::device(&server, "ann", "phone").await;
        ann.message_to_user("bob", "m1").await;
        server.terminate();
        assert!(server.wait().success());
        refused(&server.folder(), &Settings::for_tests(), any_port(), 4, &["format 4000", "newer"]);
    }
}

#[tokio::test]
async fn a_disk_that_is_full_ends_the_process_with_exit_code_1_and_loses_nothing_acked() {
    const FILE_KIB_MAX: u32 = 4 * 1024;
    const BODY_BYTES: usize = 8 * 1024;
    const FIRST_REQUEST: u64 = 1_000;
    let body = "x".repeat(BODY_BYTES);
    let folder = Folder::new();
    let mut full = Server::start_in(folder.clone(), Settings::for_tests().file_kib_max(FILE_KIB_MAX));
    let mut ann = Raw::device(&full, "ann", "phone").await;
    let mut acked = Vec::new();
    // One more than could fit.
    for number in 0..=FILE_KIB_MAX as usize * 1024 / BODY_BYTES {
        let send = Command::Send(send_to_user("bob", &format!("m{number}"), &body));
        let frame =
            ClientFrame { request_id: FIRST_REQUEST + number as u64, command: Some(send), ..Default::default() };
        // The server may end between two of them.
        if ann.try_send_bytes(&frame.encode_length_delimited_to_vec()).await.is_err() {
            break;
        }
        match within("an ack or the end", ack_or_end(&mut ann, frame.request_id)).await {
            Some(seq) => acked.push((seq, format!("m{number}"))),
            None => break,
        }
    }
    assert_eq!(full.wait().code(), Some(1), "{}", full.log());
    assert!(full.log().contains("im-server: the store has failed"), "{}", full.log());
    assert!(!acked.is_empty());

    let server = Server::start_in(folder, Settings::for_tests());
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let epoch = bob.sync().await.epoch;
    let entries = bob.pull_all(&direct("ann", "bob"), epoch, 1).await;
    let stored: Vec<(u64, String)> =
        entries.iter().map(|entry| entry.seq).zip(message_ids(&entries).into_iter().map(str::to_owned)).collect();
    assert_eq!(stored[..acked.len()], acked);
}

/// The seq of the ack; `None` if the server ended instead.
async fn ack_or_end(raw: &mut Raw, request: u64) -> Option<u64> {
    loop {
        match raw.read_unhurried().await {
            Got::Frame(ServerFrame { request_id, body: Some(Body::SendAck(ack)) }) if request_id == request => {
                return Some(ack.seq);
            }
            Got::End => return None,
            Got::Frame(_) | Got::Heartbeat => {}
        }
    }
}

#[test]
fn a_wrong_key_is_exit_code_2_and_names_the_nearest() {
    let folder = Folder::new();
    let settings = Settings::for_tests().with("IM_GATEWAY__HEARTBEAT_INTERVALL_MS", "5");
    let words = ["IM_GATEWAY__HEARTBEAT_INTERVALL_MS", "gateway.heartbeat_interval_ms"];
    refused(&folder, &settings, any_port(), 2, &words);
    assert!(!folder.data().exists(), "nothing was made");
}

#[test]
fn a_variable_with_one_underscore_too_few_is_exit_code_2_and_names_the_right_one() {
    let folder = Folder::new();
    let settings = Settings::for_tests().with("IM_LISTEN_TCP", "127.0.0.1:0");
    refused(&folder, &settings, any_port(), 2, &["IM_LISTEN_TCP", "did you mean IM_LISTEN__TCP?"]);
}

#[tokio::test]
async fn without_io_uring_the_driver_is_epoll_and_the_server_says_so() {
    let settings = Settings::for_tests().with("IM_GATEWAY__DRIVER", "auto").with("MONOIO_FORCE_LEGACY_DRIVER", "1");
    let server = Server::start_in(Folder::new(), settings);
    runs_on_epoll(&server).await;
    let log = server.log();
    let warned = |line: &str| line.contains("WARN") && line.contains("io_uring is not available here: using epoll");
    assert!(log.lines().any(warned), "{log}");
}

#[tokio::test]
async fn the_driver_can_be_chosen_on_the_command_line_without_a_command() {
    let settings = Settings::for_tests().with("IM_GATEWAY__DRIVER", "uring").arguments(&["--driver", "epoll"]);
    runs_on_epoll(&Server::start_in(Folder::new(), settings)).await;
}

async fn runs_on_epoll(server: &Server) {
    let log = server.log();
    assert!(log.lines().any(|line| line.starts_with("  tcp ") && line.ends_with("(2 cores, epoll)")), "{log}");
    assert_eq!(server.metric("im_gateway_driver{driver=\"epoll\"}"), Some(1.0));
    let mut ann = Raw::device(server, "ann", "phone").await;
    ann.message_to_user("bob", "m1").await;
}

#[test]
fn a_wrong_value_and_a_wrong_command_are_exit_code_2() {
    let folder = Folder::new();
    let settings = Settings::for_tests().with("IM_LOGIC__PARTITIONS", "many");
    refused(&folder, &settings, any_port(), 2, &["logic.partitions"]);
    let status = std::process::Command::new(binary()).arg("serve").output().unwrap();
    assert_eq!(status.status.code(), Some(2));
}

#[tokio::test]
async fn sigterm_drains_tells_the_clients_and_exits_with_0() {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut idle = Raw::device(&server, "bob", "phone").await;
    let mut requests = Vec::new();
    for number in 0..20 {
        requests.push(ann.send(Command::Send(send_to_user("bob", &format!("m{number}"), "x"))).await);
    }
    // The first answer shows that the sends are on their way in.
    assert!(matches!(ann.answer(requests[0]).await, Body::SendAck(_)));
    server.terminate();
    let mut acked = 1;
    let closing = loop {
        match ann.read().await {
            Got::Frame(ServerFrame { body: Some(Body::SendAck(_)), .. }) => acked += 1,
            Got::Frame(ServerFrame { body: Some(Body::Closing(closing)), .. }) => break closing,
            Got::Frame(_) | Got::Heartbeat => {}
            Got::End => panic!("no Closing"),
        }
    };
    assert_eq!(closing.code(), CloseCode::GoingAway);
    idle.closed_with(CloseCode::GoingAway).await;
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{}", server.log());

    server.restart();
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let head = bob.sync().await.conversations[0].head_seq;
    assert!(head >= acked, "{head} are stored, {acked} were acked");
}

#[tokio::test]
async fn a_drained_server_takes_no_new_connection_and_says_that_it_is_not_ready() {
    let mut server = Server::start(Settings::for_tests());
    let status = |path| try_get(server.http, path).map(|(status, _)| status).ok();
    assert_eq!((status("/healthz"), status("/readyz")), (Some(200), Some(200)));
    // They are told to go one after the other, and do not: the process stays for a while.
    let mut open = Vec::new();
    for number in 0..20 {
        open.push(Raw::device(&server, &format!("user{number}"), "phone").await);
    }
    server.terminate();
    let is_ready = || status("/readyz").expect("the process ended before it said that it is not ready") == 200;
    while is_ready() {}
    loop {
        let connected = within("an answer from the port", tokio::net::TcpStream::connect(server.tcp)).await;
        // Asked behind the attempt: the port was closed by a process that still ran.
        assert_eq!(status("/readyz"), Some(503));
        if connected.is_err() {
            break;
        }
    }
    assert_eq!(status("/healthz"), Some(200));
    for raw in &mut open {
        raw.closed_with(CloseCode::GoingAway).await;
    }
    assert!(server.wait().success());
}

#[tokio::test]
async fn the_first_start_prints_what_to_do_next_and_its_demo_tokens_work() {
    let folder = Folder::new();
    let settings = Settings::for_tests();
    let server = Server::start_in(folder, settings);
    let text = server.log();
    let page = format!("Open http://{}/ in two tabs", server.http);
    assert!(text.lines().any(|line| line.starts_with(&page)), "{text}");
    let tokens: BTreeSet<&str> = text.split_whitespace().filter(|word| word.starts_with("eyJ")).collect();
    assert_eq!(tokens.len(), 2, "{text}");
    for token in tokens {
        let signed_in = Raw::connect(server.tcp).await.sign_in(token, "phone").await;
        assert!(!signed_in.user_id.is_empty());
    }
    assert!(text.contains("im-server token") || text.contains("cargo run"), "the next command: {text}");
}

#[tokio::test]
async fn the_token_command_makes_a_token_that_signs_in() {
    let server = Server::start(Settings::for_tests());
    let output = std::process::Command::new(binary())
        .args(["token", "--user", "zoe", "--device", "phone"])
        .env("IM_STORE__FOLDER", server.folder().data())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap();
    let signed_in = Raw::connect(server.tcp).await.sign_in(token.trim(), "phone").await;
    assert_eq!((signed_in.user_id.as_str(), signed_in.device_id.as_str()), ("zoe", "phone"));
}
