//! `im-server doctor` on real services: what it says of a deployment that is ready, of one that is not, and of each thing that
//! can be wrong with it.

use crate::harness::deployment::{Deployment, Services};
use crate::harness::process::{Folder, Launch, Role, Settings};
use std::net::TcpListener;
use std::process::Stdio;

/// Of the exit code: something is to mend.
const MEND: i32 = 6;

struct Said {
    code: i32,
    text: String,
}

impl Said {
    /// Whether a line begins with these two words and goes on with the third.
    fn has(&self, what: &str, state: &str, words: &str) -> bool {
        self.text.lines().any(|line| {
            line.get(..8).is_some_and(|column| column.trim() == what)
                && line.get(9..16).is_some_and(|column| column.trim() == state)
                && line.contains(words)
        })
    }

    fn to_mend(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.get(9..13) == Some("MEND")).collect()
    }
}

fn run(deployment: &Deployment, arguments: &[&str], settings: Settings) -> Said {
    let environment = deployment.environment(&deployment.services).into_iter().collect();
    let launch = Launch { role: Role::Logic, folder: Folder::new(), environment, settings };
    let output = launch.command(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    Said { code: output.status.code().unwrap(), text }
}

fn doctor(deployment: &Deployment, settings: Settings) -> Said {
    run(deployment, &["doctor"], settings)
}

fn migrated() -> Deployment {
    let deployment = Deployment::new(Services::of_environment());
    assert_eq!(run(&deployment, &["migrate", "up"], Settings::default()).code, 0);
    deployment
}

#[test]
fn a_deployment_that_is_ready_has_nothing_to_mend_and_one_without_tables_and_topics_has() {
    let deployment = Deployment::new(Services::of_environment());
    let said = doctor(&deployment, Settings::default());
    assert_eq!(said.code, MEND);
    assert!(said.has("kafka", "MEND", ""), "there is no topic");
    assert!(said.has("", "MEND", "im-server migrate up"), "there are no tables");

    assert_eq!(run(&deployment, &["migrate", "up"], Settings::default()).code, 0);
    let said = doctor(&deployment, Settings::default());
    assert_eq!((said.code, said.to_mend()), (0, vec![]));
    for what in ["kafka", "redis", "mysql", "mongodb", "auth", "rpc"] {
        assert!(said.has(what, "ok", ""), "{what}");
    }
    let many = doctor(&deployment, Settings::default().with("IM_GATEWAY__CONNECTIONS_MAX", "4000000000"));
    assert!(
        many.has("files", "note", "gateway.connections_max 4000000000") && many.code == 0,
        "a gateway's may be others"
    );
    assert!(said.has("logic", "note", "http://127.0.0.1:6104") || said.has("logic", "ok", ""), "roles are asked");
}

#[test]
fn a_service_that_is_away_is_named_without_its_password_and_all_others_are_looked_at() {
    let deployment = migrated();
    let away = [
        ("kafka", "IM_KAFKA__BROKERS", "127.0.0.1:1"),
        ("redis", "IM_REDIS__URL", "redis://im:hush@127.0.0.1:1/0"),
        ("mysql", "IM_MYSQL__URL", "mysql://im:hush@127.0.0.1:1/im"),
        ("mongodb", "IM_MONGODB__URL", "mongodb://im:hush@127.0.0.1:1/"),
    ];
    for (what, variable, url) in away {
        let said = doctor(&deployment, Settings::default().with(variable, url));
        assert_eq!(said.code, MEND, "{what}");
        assert_eq!(said.to_mend().len(), 1, "{what} alone");
        assert!(said.has(what, "MEND", ""), "{what}");
        for (other, _, _) in away.iter().filter(|(other, _, _)| *other != what) {
            assert!(said.has(other, "ok", ""), "{other} beside {what}");
        }
        assert!(!said.text.contains("hush"), "{what}");
    }
}

#[test]
fn a_weak_setting_is_named_with_how_to_mend_it_unless_it_is_allowed() {
    let deployment = migrated();
    // As one broker has it.
    let allowed = doctor(&deployment, Settings::default());
    assert!(allowed.has("", "risk", "kafka.replicas") && allowed.code == 0);
    let said = doctor(&deployment, Settings::default().with("IM_KAFKA__ALLOW", "[]"));
    assert_eq!(said.code, MEND);
    assert!(said.has("", "MEND", "kafka.replicas") && said.has("", "MEND", "replication factor of 3"));
    // What every consumer would be refused with, and never say why.
    let settings = Settings::default().with("IM_KAFKA__SETTINGS", r#"["session.timeout.ms=500"]"#);
    let said = doctor(&deployment, settings);
    assert!(said.code == MEND && said.has("", "MEND", "kafka.session_range"));
}

#[test]
fn entries_without_their_unique_keys_are_to_mend() {
    let deployment = migrated();
    assert!(doctor(&deployment, Settings::default()).has("", "note", "mongodb.entries"));
    deployment.create_bare_entries();
    let said = doctor(&deployment, Settings::default());
    assert_eq!(said.code, MEND);
    assert!(said.has("", "MEND", "mongodb.unique_keys"));
}

#[test]
fn what_a_role_reads_at_its_start_is_read() {
    let deployment = migrated();
    let said = doctor(&deployment, Settings::default().with("IM_AUTH__KEYS", "[]"));
    assert!(said.has("auth", "MEND", "auth.keys") && said.code == MEND);
    let said = doctor(&deployment, Settings::default().with("IM_RPC__TLS__AUTHORITY", "/nowhere/authority.pem"));
    assert!(said.has("rpc", "MEND", "") && said.code == MEND);
    let said = doctor(&deployment, Settings::default().with("IM_LISTEN__GATEWAY_RPC", "0.0.0.0:6103"));
    assert!(said.has("rpc", "note", "rpc.advertise") && said.code == 0, "a worker's file may say nothing else");
}

#[test]
fn what_no_client_of_a_service_could_use_ends_with_2_before_any_is_asked() {
    let deployment = Deployment::new(Services::of_environment());
    for (variable, value, said_of_it) in [
        ("IM_KAFKA__SETTINGS", r#"["linger.ms=5"]"#, "linger.ms"),
        ("IM_KAFKA__SETTINGS", r#"["no.such.setting=1"]"#, "no.such.setting"),
        ("IM_KAFKA__PARTITIONS", "257", "kafka.partitions"),
        ("IM_REDIS__URL", "127.0.0.1:hush", "redis"),
        ("IM_REDIS__PREFIX", "a b", "prefix"),
        ("IM_MYSQL__URL", "mysql://im:hush@127.0.0.1", "mysql"),
        ("IM_MONGODB__URL", "127.0.0.1:hush", "mongodb"),
        ("IM_RPC__LOGIC__ENDPOINTS", r#"["worker-1:6104"]"#, "rpc.logic.endpoints"),
        ("IM_RPC__DEVICE__ENDPOINTS", r#"["worker-1:6104"]"#, "rpc.device.endpoints"),
        ("IM_RPC__ADVERTISE", "http://0.0.0.0:6103", "rpc.advertise"),
    ] {
        for arguments in [&["config", "check"][..], &["logic"], &["gateway"], &["migrate", "status"]] {
            let said = run(&deployment, arguments, Settings::default().with(variable, value));
            assert_eq!(said.code, 2, "{arguments:?} with {variable}={value}");
            assert!(
                said.text.contains(said_of_it) && !said.text.contains("hush"),
                "{arguments:?} with {variable}={value}"
            );
        }
    }
}

#[test]
fn a_role_that_is_told_to_stop_while_it_waits_for_a_silent_service_ends_with_0() {
    let deployment = migrated();
    for role in ["logic", "gateway"] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let mut settings = Settings::default().with("IM_KAFKA__BROKERS", &silent.local_addr().unwrap().to_string());
        for listener in ["TCP", "WEBSOCKET", "HTTP", "GATEWAY_RPC", "LOGIC_HTTP", "LOGIC_RPC"] {
            settings = settings.with(&format!("IM_LISTEN__{listener}"), "127.0.0.1:0");
        }
        let environment = deployment.environment(&deployment.services).into_iter().collect();
        let launch = Launch { role: Role::Logic, folder: Folder::new(), environment, settings };
        let mut command = launch.command(&[role]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It listens for signals before it asks anybody.
        let _asked = loop {
            match silent.accept() {
                Ok(asked) => break asked,
                Err(_) => assert!(process.try_wait().unwrap().is_none(), "{role} asked nobody"),
            }
            std::thread::yield_now();
        };
        // SAFETY: `kill` takes two integers; the process is our own child and not yet waited for.
        let told = unsafe { libc::kill(process.id() as libc::pid_t, libc::SIGTERM) };
        assert_eq!(told, 0);
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{role}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
