//! Keys and settings, looked at before anything is written.
//!
//! In: a database. Out: its collections with their keys, its epoch, and what is weak about it. Always: without both unique
//! keys nothing is opened; a weakness is a reason to refuse unless the operator allowed it by name.

use super::MongoOptions;
use super::append::durable;
use super::clock::{Said, ServerClock};
use crate::finding::{Finding, Severity, refuse_unsafe};
use crate::planted::planted;
use futures_util::TryStreamExt as _;
use im_proto::Epoch;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection, Database, IndexModel};
use std::time::Instant;

#[derive(Debug, thiserror::Error)]
pub enum MongoError {
    #[error("mongodb: {0}")]
    Options(String),
    /// The driver's words, without the address, which may hold a password.
    #[error("mongodb: {0}")]
    Driver(String),
    #[error("mongodb: collection entries lacks the unique key {0}: nothing can be stored safely")]
    NoUniqueKey(String),
    #[error("mongodb: {0}; mend it, or name it in the allow list")]
    Weak(Finding),
    #[error("mongodb: the document that names the store is unreadable")]
    NoEpoch,
}

impl From<Error> for MongoError {
    fn from(error: Error) -> Self {
        Self::Driver(error.kind.to_string())
    }
}

/// What is open.
pub struct Opened {
    pub database: Database,
    pub entries: Collection<Document>,
    pub logs: Collection<Document>,
    pub epoch: Epoch,
    pub created_ms: i64,
    pub clock: ServerClock,
}

const ENTRIES: &str = "entries";
/// The unique keys that give a seq to one writer.
const UNIQUE: [&[&str]; 2] = [&["l", "s"], &["l", "u", "i"]];

/// With data, so that a majority outlives any one of them.
const MEMBERS_MIN: usize = 3;
/// Two clocks further apart than this are worth a word: tokens, and the ages of records in a backlog, are judged by ours.
const CLOCKS_APART_MAX_MS: u64 = 5_000;
/// Connections of this process to one server, unless the URL says another number: the driver's 10 would let appends wait for
/// reads, of which there are hundreds at once.
const POOL_MAX: u32 = 64;
/// "No such collection".
const NAMESPACE_NOT_FOUND: i32 = 26;
/// The same keys have an index of another name, or the same name another index.
const INDEX_CONFLICTS: [i32; 2] = [85, 86];

pub async fn open(options: &MongoOptions) -> Result<Opened, MongoError> {
    let database = connect(options).await?;
    let hello = hello(&database).await?;
    let clock = ServerClock::new(said(&hello, (options.wall_clock_ms)()));
    refuse_unsafe(findings(&hello, options), &options.allow).map_err(MongoError::Weak)?;
    let entries: Collection<Document> = database.collection(ENTRIES);
    let logs: Collection<Document> = database.collection("logs");
    let [seq, client_id] = UNIQUE;
    make_indexes(&entries, &[(seq, true), (client_id, true), (&["w", "l", "s"], false)]).await?;
    make_indexes(&logs, &[(&["h", "_id"], false)]).await?;
    assert_unique_keys(&entries).await?;
    let now_ms = options.given_time_ms.map_or_else(|| clock.now_ms(Instant::now()), |given_ms| given_ms());
    let (epoch, created_ms) = identity(&database, now_ms).await?;
    Ok(Opened { database, entries, logs, epoch, created_ms, clock })
}

/// What is weak about the database and lacking in it, for an operator.
pub async fn check(options: &MongoOptions) -> Result<Vec<Finding>, MongoError> {
    let look = async {
        let database = connect(options).await?;
        let mut found = findings(&hello(&database).await?, options);
        found.extend(of_entries(&database).await?);
        Ok(found)
    };
    let looked = tokio::time::timeout(options.timeout, look).await;
    looked.unwrap_or_else(|_| Err(MongoError::Driver("no answer in time".to_owned())))
}

/// Opening makes what is lacking here, unless entries that are there stand against it.
async fn of_entries(database: &Database) -> Result<Option<Finding>, MongoError> {
    if !database.list_collection_names().await?.iter().any(|name| name == ENTRIES) {
        let found = "there is no collection entries yet";
        return Ok(Some(Finding::new("mongodb.entries", Severity::Note, found, "the first logic role makes it")));
    }
    match assert_unique_keys(&database.collection(ENTRIES)).await {
        Ok(()) => Ok(None),
        Err(MongoError::NoUniqueKey(key)) => Ok(Some(Finding::new(
            "mongodb.unique_keys",
            Severity::Unsafe,
            format!("the collection entries lacks the unique key ({key})"),
            "start a logic role, which makes it; one that cannot says which entries are there twice",
        ))),
        Err(error) => Err(error),
    }
}

async fn connect(options: &MongoOptions) -> Result<Database, MongoError> {
    let mut client = ClientOptions::parse(&options.url).await?;
    client.app_name = Some("im-server".to_owned());
    client.server_selection_timeout = Some(options.timeout);
    client.connect_timeout = Some(options.timeout);
    client.max_pool_size.get_or_insert(POOL_MAX);
    client.write_concern = Some(durable(options.timeout));
    client.read_concern = Some(ReadConcern::majority());
    client.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    Ok(Client::with_options(client)?.database(&options.database))
}

pub async fn hello(database: &Database) -> Result<Document, Error> {
    database.run_command(doc! { "hello": 1 }).await
}

/// What time the greeting says it is. Every server tells it; `wall_ms`, ours, stands for one that does not.
pub fn said(hello: &Document, wall_ms: i64) -> Said {
    let server_ms = hello.get_datetime("localTime").map_or(wall_ms, |time| time.timestamp_millis());
    Said { server_ms, at: Instant::now(), wall_ms }
}

fn findings(hello: &Document, options: &MongoOptions) -> Vec<Finding> {
    weak(hello).into_iter().chain(clock(hello, (options.wall_clock_ms)())).collect()
}

/// What the server's own greeting says of it. Of a cluster no more has to be asked: MongoDB shards no collection, and makes no
/// unique key, where two shards could hold the same key, and without our keys nothing is opened.
fn weak(hello: &Document) -> Option<Finding> {
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        let found = "a sharded cluster, which does not say how many members its shards have";
        return Some(Finding::new("mongodb.sharded", Severity::Note, found, "three with data in each"));
    }
    if !hello.contains_key("setName") {
        let found = "the server is no member of a replica set, so there is no majority";
        return Some(Finding::new("mongodb.standalone", Severity::Unsafe, found, "run a replica set of three"));
    }
    // Arbiters are in neither list: they acknowledge nothing.
    let count = |field| hello.get_array(field).map_or(0, Vec::len);
    let members = count("hosts") + count("passives");
    (members < MEMBERS_MIN).then(|| {
        let found =
            format!("the replica set has {members} members with data; without one of them it loses entries or stops");
        Finding::new("mongodb.members", Severity::Risk, found, "run a replica set of three")
    })
}

/// `now_ms` is ours, when the greeting came.
fn clock(hello: &Document, now_ms: i64) -> Option<Finding> {
    let theirs_ms = hello.get_datetime("localTime").ok()?.timestamp_millis();
    let apart_ms = theirs_ms.abs_diff(now_ms);
    (apart_ms > CLOCKS_APART_MAX_MS).then(|| {
        let found = format!("its clock and ours are {apart_ms} ms apart");
        Finding::new("mongodb.clock", Severity::Risk, found, "keep the clocks of all hosts in step")
    })
}

/// Makes those that are missing. An operator's own of the same fields will do, whatever its name, and MongoDB lets no second
/// one be made beside it.
async fn make_indexes(of: &Collection<Document>, wanted: &[(&[&str], bool)]) -> Result<(), MongoError> {
    let there = match planted("operators_index_refused") {
        true => Vec::new(),
        false => indexes(of).await?,
    };
    for (fields, is_unique) in wanted {
        if there.iter().any(|index| covers(index, fields, *is_unique)) {
            continue;
        }
        match of.create_index(index(fields, *is_unique)).await {
            // One that is not unique is in the way: what has to be unique is looked at afterwards.
            Err(error) if is_conflict(&error) && !planted("operators_index_refused") => {}
            outcome => outcome.map(drop)?,
        }
    }
    Ok(())
}

/// None of a collection that is not there.
async fn indexes(of: &Collection<Document>) -> Result<Vec<IndexModel>, MongoError> {
    let listed = async { of.list_indexes().await?.try_collect().await };
    let listed: Result<Vec<IndexModel>, Error> = listed.await;
    match listed {
        Err(error) if code(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        outcome => Ok(outcome?),
    }
}

fn code(error: &Error) -> Option<i32> {
    let ErrorKind::Command(refused) = error.kind.as_ref() else { return None };
    Some(refused.code)
}

fn is_conflict(error: &Error) -> bool {
    code(error).is_some_and(|code| INDEX_CONFLICTS.contains(&code))
}

/// Whether it is over these fields in their order and of every document, and unique if it has to be.
fn covers(index: &IndexModel, fields: &[&str], has_to_be_unique: bool) -> bool {
    let options = index.options.as_ref();
    let is_unique = options.and_then(|options| options.unique).unwrap_or(false);
    let is_partial = options.is_some_and(|options| options.partial_filter_expression.is_some());
    index.keys.keys().map(String::as_str).eq(fields.iter().copied()) && !is_partial && (is_unique || !has_to_be_unique)
}

fn index(fields: &[&str], is_unique: bool) -> IndexModel {
    let keys: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
    IndexModel::builder().keys(keys).options(IndexOptions::builder().unique(is_unique).build()).build()
}

/// Made by us or by an operator: they must be there, and unique.
async fn assert_unique_keys(entries: &Collection<Document>) -> Result<(), MongoError> {
    let there = indexes(entries).await?;
    match UNIQUE.iter().find(|key| !there.iter().any(|index| covers(index, key, true))) {
        None => Ok(()),
        Some(key) => Err(MongoError::NoUniqueKey(key.join(", "))),
    }
}

/// Of the first open: who comes second reads what the first wrote.
async fn identity(database: &Database, now_ms: i64) -> Result<(Epoch, i64), MongoError> {
    let store: Collection<Document> = database.collection("store");
    let fresh = doc! { "_id": "store", "epoch": now_ms.max(1), "created_ms": now_ms };
    // Taken: another process was first.
    let _ = store.insert_one(fresh).await;
    let found = store.find_one(doc! { "_id": "store" }).await?.ok_or(MongoError::NoEpoch)?;
    let number = |field| found.get_i64(field).map_err(|_| MongoError::NoEpoch);
    let epoch = u64::try_from(number("epoch")?).map_err(|_| MongoError::NoEpoch)?;
    Ok((Epoch(epoch), number("created_ms")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_judged_by_its_greeting() {
        let of = |hello: Document| weak(&hello).map(|finding| (finding.name, finding.severity));
        let standalone = Some(("mongodb.standalone", Severity::Unsafe));
        assert_eq!(of(doc! { "isWritablePrimary": true }), standalone);
        assert_eq!(of(doc! { "msg": "isdbgrid" }), Some(("mongodb.sharded", Severity::Note)));
        let few = Some(("mongodb.members", Severity::Risk));
        assert_eq!(of(doc! { "setName": "rs", "hosts": ["a:1"] }), few);
        assert_eq!(of(doc! { "setName": "rs", "hosts": ["a:1", "b:1"], "arbiters": ["c:1"] }), few);
        assert_eq!(of(doc! { "setName": "rs", "hosts": ["a:1", "b:1"], "passives": ["c:1"] }), None);
        assert_eq!(of(doc! { "setName": "rs", "hosts": ["a:1", "b:1", "c:1"] }), None);
    }

    #[test]
    fn a_clock_that_is_apart_is_told() {
        let hello = doc! { "localTime": mongodb::bson::DateTime::from_millis(1_000_000) };
        let most_ms = CLOCKS_APART_MAX_MS as i64;
        for (now_ms, is_told) in [
            (1_000_000, false),
            (1_000_000 + most_ms, false),
            (1_000_000 - most_ms, false),
            (1_000_001 + most_ms, true),
            (999_999 - most_ms, true),
        ] {
            let found = clock(&hello, now_ms).map(|finding| (finding.name, finding.severity));
            assert_eq!(found, is_told.then_some(("mongodb.clock", Severity::Risk)), "{now_ms}");
        }
        assert_eq!(clock(&doc! {}, 0), None, "a server that does not tell its time is not judged by it");
    }

    #[test]
    fn an_operators_index_will_do_if_it_is_over_the_same_fields_and_unique_where_that_matters() {
        let key = ["l", "s"];
        assert!(covers(&index(&key, true), &key, true) && covers(&index(&key, true), &key, false));
        assert!(covers(&index(&key, false), &key, false));
        assert!(!covers(&index(&key, false), &key, true), "it lets two entries have one seq");
        assert!(!covers(&index(&["s", "l"], true), &key, true));
        assert!(!covers(&index(&["l", "s", "u"], true), &key, true));
        let mut partial = index(&key, true);
        partial.options.as_mut().unwrap().partial_filter_expression = Some(doc! { "o": true });
        assert!(!covers(&partial, &key, true), "it lets all but the first of a page be there twice");
    }
}
