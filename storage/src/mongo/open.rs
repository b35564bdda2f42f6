//! Keys and settings, looked at before anything is written.
//!
//! In: a database. Out: its collections with their keys, its epoch, and what is weak about it. Always: without both unique
//! keys nothing is opened; a weakness is a reason to refuse unless the operator allowed it by name.

use super::MongoOptions;
use super::append::durable;
use crate::finding::{Finding, Severity, refuse_unsafe};
use futures_util::TryStreamExt as _;
use im_proto::Epoch;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, IndexOptions, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection, Database, IndexModel};

#[derive(Debug, thiserror::Error)]
pub enum MongoError {
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

impl From<mongodb::error::Error> for MongoError {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Driver(error.kind.to_string())
    }
}

/// What is open.
pub struct Opened {
    pub entries: Collection<Document>,
    pub logs: Collection<Document>,
    pub epoch: Epoch,
    pub created_ms: i64,
}

const ENTRIES: &str = "entries";
/// The unique keys that give a seq to one writer.
const UNIQUE: [&[&str]; 2] = [&["l", "s"], &["l", "u", "i"]];

/// With data, so that a majority outlives any one of them.
const MEMBERS_MIN: usize = 3;

pub async fn open(options: &MongoOptions, now_ms: i64) -> Result<Opened, MongoError> {
    let database = connect(options).await?;
    refuse_unsafe(findings(&database).await?, &options.allow).map_err(MongoError::Weak)?;
    let entries: Collection<Document> = database.collection(ENTRIES);
    let logs: Collection<Document> = database.collection("logs");
    for key in UNIQUE {
        entries.create_index(index(key, true)).await?;
    }
    entries.create_index(index(&["w", "l", "s"], false)).await?;
    logs.create_index(index(&["h", "_id"], false)).await?;
    assert_unique_keys(&entries).await?;
    let (epoch, created_ms) = identity(&database, now_ms).await?;
    Ok(Opened { entries, logs, epoch, created_ms })
}

/// What is weak about the database and lacking in it, for an operator.
pub async fn check(options: &MongoOptions) -> Result<Vec<Finding>, MongoError> {
    let database = connect(options).await?;
    let mut found = findings(&database).await?;
    found.extend(of_entries(&database).await?);
    Ok(found)
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
    client.write_concern = Some(durable(options.timeout));
    client.read_concern = Some(ReadConcern::majority());
    client.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    Ok(Client::with_options(client)?.database(&options.database))
}

async fn findings(database: &Database) -> Result<Vec<Finding>, MongoError> {
    Ok(weak(&database.run_command(doc! { "hello": 1 }).await?).into_iter().collect())
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

fn index(fields: &[&str], is_unique: bool) -> IndexModel {
    let keys: Document = fields.iter().map(|field| ((*field).to_owned(), 1.into())).collect();
    IndexModel::builder().keys(keys).options(IndexOptions::builder().unique(is_unique).build()).build()
}

/// Made by us or by an operator: they must be there, and unique.
async fn assert_unique_keys(entries: &Collection<Document>) -> Result<(), MongoError> {
    let found: Vec<IndexModel> = entries.list_indexes().await?.try_collect().await?;
    for key in UNIQUE {
        let is_there = found.iter().any(|index| {
            let is_unique = index.options.as_ref().and_then(|options| options.unique).unwrap_or(false);
            is_unique && index.keys.keys().map(String::as_str).eq(key.iter().copied())
        });
        if !is_there {
            return Err(MongoError::NoUniqueKey(key.join(", ")));
        }
    }
    Ok(())
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
}
