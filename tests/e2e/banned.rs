//! A banned user is signed out and stays out; nobody else notices. By the commands that an operator types.

use crate::harness::raw::{Raw, sign_in, within, within_time};
use crate::harness::server::{Folder, Launch, Server, Settings, is_cluster};
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, kicked};
use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::FromRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

/// Between two looks at what gives no notice.
const POLL: Duration = Duration::from_millis(20);
/// Ten times the bound.
const BAN_DEADLINE: Duration = Duration::from_secs(50);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// `im-server account …`, which must succeed; what it printed.
fn account(server: &Server, arguments: &[&str]) -> String {
    let mut words = vec!["account"];
    words.extend(arguments);
    words.extend(is_cluster().then_some("--distributed"));
    let output = server.command(&words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}\n{}", output.status, said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Until every process of the logic knows of so many.
async fn are_banned(server: &Server, users: usize) {
    let processes = if is_cluster() { 2 } else { 1 };
    let known = async {
        while server.metric("im_logic_users_banned ") != Some((users * processes) as f64) {
            tokio::time::sleep(POLL).await;
        }
    };
    within_time(BAN_DEADLINE, "the ban is known", known).await;
}

/// At each door: the user is told that it is banned, and nothing else.
async fn is_refused(server: &Server, user: &str) {
    // Two connections, so that of two gateways each has one.
    for device in ["phone", "unseen"] {
        let mut raw = Raw::connect(server.clients()).await;
        raw.send(sign_in(&server.key.token(user), device)).await;
        raw.closed_with(CloseCode::UserBanned).await;
    }
}

async fn is_kicked(raw: &mut Raw) {
    let is_kick = |body: &Body| match body {
        Body::Kicked(kicked) => Some(kicked.reason()),
        _ => None,
    };
    assert_eq!(raw.push(is_kick).await, kicked::Reason::Banned);
    raw.closed_with(CloseCode::UserBanned).await;
}

/// No heartbeat is sent: the kick does it.
#[tokio::test]
async fn a_banned_user_is_signed_out_everywhere_and_not_signed_in_while_others_go_on() {
    let server = Server::start(Settings::for_tests());
    let mut devices = Vec::new();
    for device in ["phone", "tablet", "web", "watch"] {
        devices.push(Raw::device(&server, "mallory", device).await);
    }
    let mut ann = Raw::device(&server, "ann", "phone").await;
    // Its name begins like the other's.
    let mut near = Raw::device(&server, "mallory2", "phone").await;
    ann.message_to_user("mallory", "before").await;

    assert_eq!(account(&server, &["ban", "mallory"]), "mallory is banned\n");
    for device in &mut devices {
        is_kicked(device).await;
    }
    are_banned(&server, 1).await;
    is_refused(&server, "mallory").await;
    assert_eq!(account(&server, &["ban", "mallory"]), "mallory was banned already\n");
    assert!(account(&server, &["list"]).starts_with("mallory  since unix ms "), "and it is listed");

    ann.message_to_user("mallory", "meanwhile").await;
    ann.message_to_user("mallory2", "m").await;
    for other in [&mut ann, &mut near] {
        other.is_alive().await;
    }

    assert_eq!(account(&server, &["unban", "mallory"]), "mallory is banned no more\n");
    are_banned(&server, 0).await;
    let mut back = Raw::device(&server, "mallory", "phone").await;
    let known = back.sync().await;
    let heads: Vec<u64> = known.conversations.iter().map(|state| state.head_seq).collect();
    assert_eq!(heads, [2], "what came meanwhile waits");
    assert_eq!(account(&server, &["unban", "mallory"]), "mallory was not banned\n");
    assert_eq!(account(&server, &["list"]), "");
}

#[tokio::test]
async fn a_ban_outlives_a_kill_and_one_that_was_told_to_no_server_counts_when_it_starts() {
    let mut server = Server::start(Settings::for_tests());
    account(&server, &["ban", "mallory"]);
    server.kill9();
    // Nobody runs: a socket that the killed server left leads nowhere.
    assert_eq!(account(&server, &["ban", "oscar"]), "oscar is banned\n");
    server.restart();
    for user in ["mallory", "oscar"] {
        is_refused(&server, user).await;
    }
    assert_eq!(account(&server, &["unban", "mallory"]), "mallory is banned no more\n");
    server.kill9();
    server.restart();
    Raw::device(&server, "mallory", "phone").await;
    is_refused(&server, "oscar").await;
}

#[tokio::test]
async fn what_an_operator_types_wrong_is_told_apart_by_its_exit_code() {
    let server = Server::start(Settings::for_tests());
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = server.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    };
    refused(&["account", "ban", "no id"], 2, "USER");
    refused(&["account", "ban", &"x".repeat(65)], 2, "USER");
    refused(&["account", "ban"], 2, "USER");
    let empty = Launch::standalone(Folder::new(), Settings::for_tests());
    let output = empty.command(&["account", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(!empty.folder.data().exists(), "nothing was made");
}

/// Standalone, whatever this run tests: the socket is its alone.
#[tokio::test]
async fn the_control_socket_is_found_below_a_long_path_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let data = folder.data().join("x".repeat(120)).join("data");
    let settings = Settings::for_tests().with("IM_STORE__FOLDER", &data.display().to_string());
    let mut server = Server::start_in(folder, settings);
    let socket = data.join("control.sock");
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let ban = |user: &str| {
        let output = server.command(&["account", "ban", user]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    ban("mallory");
    is_refused(&server, "mallory").await;
    server.kill9();
    assert!(socket.exists(), "a killed server leaves it");
    server.restart();
    let output = server.command(&["account", "ban", "oscar"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    is_refused(&server, "oscar").await;
    server.terminate();
    assert!(server.wait().success());
    assert!(!socket.exists(), "one that stops in order takes it away");
}

/// The kernel's word that a file was opened.
struct Opens(File);

impl Opens {
    fn of(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: two system calls with a path that outlives them; the descriptor is new, and the file's alone.
        let notices = unsafe {
            let notices = libc::inotify_init1(libc::IN_CLOEXEC);
            assert!(notices >= 0 && libc::inotify_add_watch(notices, path.as_ptr(), libc::IN_OPEN) >= 0);
            File::from_raw_fd(notices)
        };
        Self(notices)
    }

    /// Waits for the next one.
    async fn next(&self) {
        let mut notices = self.0.try_clone().unwrap();
        let read = tokio::task::spawn_blocking(move || notices.read(&mut [0; 64]));
        within("the file is opened", read).await.unwrap().unwrap();
    }
}

/// Standalone, whatever this run tests. Its server is one that has locked the folder and repairs its store, say.
#[tokio::test]
async fn an_order_waits_for_a_server_that_has_its_folder_and_does_not_listen_yet() {
    let mut server = Server::start_in(Folder::new(), Settings::for_tests());
    server.terminate();
    assert!(server.wait().success());
    let lock = server.folder().data().join("lock");
    let held = File::open(&lock).unwrap();
    held.lock().unwrap();
    let opens = Opens::of(&lock);
    let asking = server.command(&["account", "ban", "mallory"]).stdout(Stdio::piped()).spawn().unwrap();
    opens.next().await;
    // It found the folder locked, and has come back.
    opens.next().await;
    drop(held);
    let output = asking.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "mallory is banned\n");
}
