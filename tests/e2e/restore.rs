//! `im-server restore`: a backup in the folder's place becomes a new history, and every client notices.

use crate::harness::calls::{direct, pull};
use crate::harness::raw::{Raw, assert_final, send_to_user, within};
use crate::harness::read_back::read_back;
use crate::harness::server::{Addresses, Folder, Server, Settings, binary};
use im_client::tokio_transport::{Client, Events};
use im_client::{Config, Event, Recipient};
use im_proto::client::client_frame::Command;
use im_proto::client::{Entry, ErrorCode, Sync};
use im_proto::{DeviceId, UserId};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

/// An app that keeps what it is shown, and forgets it when it is told to.
struct Reader {
    client: Client,
    events: Events,
    shown: BTreeMap<String, Vec<Entry>>,
    resets: usize,
}

impl Reader {
    fn start(server: &Server, user: &str) -> Self {
        let config =
            Config::new(UserId::parse(user).unwrap(), DeviceId::parse("phone").unwrap(), server.key.token(user));
        let (client, events) = Client::connect(server.tcp.to_string(), config);
        Self { client, events, shown: BTreeMap::new(), resets: 0 }
    }

    async fn send(&self, user: &str, text: &str) -> im_proto::Seq {
        let to = Recipient::User(UserId::parse(user).unwrap());
        within(text, self.client.send(to, text)).await.unwrap().seq
    }

    /// Until the app shows `seq` of the conversation, after `resets`.
    async fn shows(&mut self, conversation: &str, seq: usize, resets: usize) {
        while self.resets < resets || self.shown.get(conversation).map_or(0, Vec::len) < seq {
            match within("an event", self.events.next()).await.unwrap() {
                Event::Entry { conversation, entry } => {
                    let entries = self.shown.entry(conversation.to_string()).or_default();
                    assert_eq!(entry.seq, entries.len() as u64 + 1);
                    entries.push(entry);
                }
                Event::Reset => {
                    self.resets += 1;
                    self.shown.clear();
                }
                _ => {}
            }
        }
        assert_eq!(self.resets, resets);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn restore(folder: &Folder) -> Output {
    std::process::Command::new(binary()).arg("restore").env("IM_STORE__FOLDER", folder.data()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// A stopped server's folder with messages of ann to bob.
async fn used_folder(messages: usize) -> (Server, Folder) {
    let mut server = Server::start(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    for number in 1..=messages {
        ann.message(send_to_user("bob", &format!("m{number}"), &format!("the words of message {number}"))).await;
    }
    stop(&mut server);
    let folder = server.folder();
    (server, folder)
}

fn stop(server: &mut Server) {
    server.terminate();
    assert!(server.wait().success(), "{}", server.log());
}

#[tokio::test]
async fn clients_of_a_restored_store_are_reset_and_converge_on_the_restored_history() {
    let mut server = Server::start(Settings::for_tests());
    let folder = server.folder();
    let backup = folder.path().join("backup");
    let conversation = direct("ann", "bob");
    let (mut ann, mut bob) = (Reader::start(&server, "ann"), Reader::start(&server, "bob"));
    for number in 1..=20 {
        ann.send("bob", &format!("before {number}")).await;
    }
    stop(&mut server);
    copy(&folder.data(), &backup);

    server.restart();
    let kept = read_back(&server, "bob", "backup").await.conversations.remove(0).entries;
    for number in 1..=10 {
        ann.send("bob", &format!("lost {number}")).await;
    }
    for reader in [&mut ann, &mut bob] {
        reader.shows(&conversation, 30, 0).await;
    }
    let old = Raw::device(&server, "bob", "tablet").await.sync().await;
    stop(&mut server);

    std::fs::remove_dir_all(folder.data()).unwrap();
    copy(&backup, &folder.data());
    let output = restore(&folder);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("20 entries") && said(&output).contains("RESET"), "{}", said(&output));
    server.restart();

    let mut raw = Raw::connect(server.tcp).await;
    let signed_in = raw.sign_in(&server.key.token("bob"), "tablet").await;
    assert!(signed_in.epoch > old.epoch);
    assert!(said(&output).contains(&format!("{} -> {}", old.epoch, signed_in.epoch)), "{}", said(&output));
    let with_old_token = raw.call(Command::Sync(Sync { token: old.token, limit: 0 })).await;
    assert_final(&with_old_token, ErrorCode::Reset);
    assert_final(&raw.call(pull(&conversation, old.epoch, 1)).await, ErrorCode::Reset);

    for reader in [&mut ann, &mut bob] {
        reader.client.reconnect().await.unwrap();
        reader.shows(&conversation, 20, 1).await;
        assert_eq!(reader.shown[&conversation], kept, "nothing of the restored history is lost or changed");
    }
    assert_eq!(ann.send("bob", "after 1").await.0, 21);
    assert_eq!(bob.send("ann", "after 2").await.0, 22);
    let stored = read_back(&server, "bob", "fresh").await.conversations.remove(0).entries;
    for reader in [&mut ann, &mut bob] {
        reader.shows(&conversation, 22, 1).await;
        assert_eq!(reader.shown[&conversation], stored);
    }
}

#[tokio::test]
async fn a_store_older_than_its_folder_is_refused_until_it_was_restored_knowingly() {
    let (mut server, folder) = used_folder(5).await;
    let store = folder.data().join("store.redb");
    let older = std::fs::read(&store).unwrap();
    server.restart();
    Raw::device(&server, "ann", "phone").await.message_to_user("bob", "younger").await;
    stop(&mut server);
    std::fs::write(&store, older).unwrap();

    let any = Addresses::any_port([127, 0, 0, 1].into());
    let (status, text) = Server::refuse_to_start(&folder, &Settings::for_tests(), any);
    assert_eq!(status.code(), Some(5), "{text}");
    assert!(text.contains("im-server restore"), "{text}");
    let output = restore(&folder);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("is not in this copy"), "{}", said(&output));
    server.restart();
    let known = Raw::device(&server, "bob", "phone").await.sync().await;
    assert_eq!(known.conversation(&direct("ann", "bob")).head_seq, 5);

    stop(&mut server);
    let again = restore(&folder);
    assert!(again.status.success() && !said(&again).contains("is not in this copy"), "{}", said(&again));
    server.restart();
    assert!(Raw::device(&server, "bob", "phone").await.sync().await.epoch > known.epoch, "each time another history");
}

#[tokio::test]
async fn a_backup_with_a_wrong_byte_is_refused_and_left_as_it_is() {
    let (_server, folder) = used_folder(5).await;
    let store = folder.data().join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let words = b"the words of message 3";
    let places: Vec<usize> = (0..bytes.len() - words.len()).filter(|at| bytes[*at..].starts_with(words)).collect();
    assert!(!places.is_empty(), "the body is somewhere in the file");
    places.into_iter().for_each(|place| bytes[place] ^= 1);
    std::fs::write(&store, &bytes).unwrap();
    let output = restore(&folder);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    assert!(said(&output).contains("damaged"), "{}", said(&output));
    assert!(std::fs::read(&store).unwrap() == bytes, "the backup was touched");
}

#[tokio::test]
async fn restore_wants_a_store_and_nobody_at_it() {
    let server = Server::start(Settings::for_tests());
    let output = restore(&server.folder());
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("another process"), "{}", said(&output));

    let empty = Folder::new();
    let output = restore(&empty);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("there is no store"), "{}", said(&output));
    assert!(!empty.data().exists(), "nothing was made");
}
