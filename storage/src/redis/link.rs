//! One connection to Redis that many callers share, made again when it breaks.
//!
//! In: commands. Out: their answers, and the number of the server that gave them. Always: at most [`PIPELINES_MAX`]
//! pipelines are under way and others wait; every wait ends; a server is used only after its settings were looked at and the
//! scripts loaded; the number rises when a new connection leads to another server, or another run of one, so a claim can
//! tell that moves may have gone elsewhere.

use super::{OpenError, RedisOptions, scripts, server::Server};
use crate::finding::{Finding, Severity, refuse_unsafe};
use crate::ports::StoreError;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo as _, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use std::time::Duration;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};

/// A whole call of a port, all its pipelines together.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// One pipeline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Connecting, looking at the server and loading the scripts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed attempt, callers are told so for this long before the next one tries.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Commands of one pipeline; a longer call sends several, one behind the other.
const PIPELINE_COMMANDS_MAX: usize = 512;
/// Pipelines under way. Others wait, within their call's time.
const PIPELINES_MAX: usize = 64;

pub struct Link {
    client: Client,
    allow: Vec<String>,
    state: Mutex<State>,
    /// The driver's own limit counts commands: a long pipeline would hold up everybody else.
    pipelines: Semaphore,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    connections: u64,
    /// How many servers, or runs of one, there were; and the last one's identity.
    servers: u64,
    identity: String,
    failed: Option<(Instant, StoreError)>,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    number: u64,
    server: u64,
}

/// Bounds a call of a port.
pub async fn bounded<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(away("no answer in time")))
}

fn away(why: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("redis: {why}"))
}

impl Link {
    pub fn new(options: &RedisOptions) -> Result<Self, OpenError> {
        #[cfg(feature = "redis-tls")]
        // Fails only if the process has a provider already, and then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The driver's message may quote the URL.
        let wrong = |_| OpenError::Options("the URL is not redis://[user:password@]host:port/db".to_owned());
        // Many callers share a connection: none of their small commands waits for the answers of the others.
        let tcp = TcpSettings::default().set_nodelay(true);
        let server = options.url.as_str().into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        let client = Client::open(server).map_err(wrong)?;
        let (allow, pipelines) = (options.allow.clone(), Semaphore::new(PIPELINES_MAX));
        Ok(Self { client, allow, state: Mutex::default(), pipelines })
    }

    /// Connects; says by name what makes the server unsafe.
    pub async fn open(&self) -> Result<(), OpenError> {
        refuse_unsafe(self.findings().await?, &self.allow).map_err(OpenError::Unsafe)?;
        self.live().await.map(drop).map_err(OpenError::from)
    }

    /// What the server says of itself, over a connection of its own.
    pub async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        let ask = async {
            let mut connection = self.connect().await?;
            let server = Server::ask(&mut connection).await.map_err(|error| failure(&error))?;
            Ok(server.findings(&self.allow))
        };
        timeout(CONNECT_TIMEOUT, ask).await.unwrap_or_else(|_| Err(away("no connection in time")))
    }

    /// The answers to commands, in their order. Every command was carried out, or the call fails; which ones were is then
    /// not known.
    pub async fn run(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let mut pipeline = Pipeline::new();
            for command in commands.by_ref().take(PIPELINE_COMMANDS_MAX) {
                pipeline.add_command(command);
            }
            answers.append(&mut self.run_pipeline(pipeline).await?.0);
        }
        Ok(answers)
    }

    /// The answer to one command, and the number of the server that gave it.
    pub async fn run_one(&self, command: Cmd) -> Result<(Value, u64), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command);
        let (mut answers, server) = self.run_pipeline(pipeline).await?;
        let answer = answers.pop().ok_or_else(|| away("an answer is missing"))?;
        Ok((answer, server))
    }

    /// The number of the server that the present connection leads to.
    pub async fn server(&self) -> Result<u64, StoreError> {
        Ok(self.live().await?.server)
    }

    async fn run_pipeline(&self, mut pipeline: Pipeline) -> Result<(Vec<Value>, u64), StoreError> {
        let live = self.live().await?;
        let results = self.send(&live, pipeline.ignore_errors()).await?;
        let unknown_script = |result: &RedisResult<Value>| {
            let error = result.as_ref().err();
            error.is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
        };
        if !results.iter().any(unknown_script) {
            let answers = results.into_iter().map(|result| result.map_err(|error| failure(&error)));
            return Ok((answers.collect::<Result<_, _>>()?, live.server));
        }
        // Somebody flushed the scripts under this connection. What was not carried out for that reason is sent again.
        let mut again = scripts::load();
        let loads = again.len();
        for (command, _) in pipeline.cmd_iter().zip(&results).filter(|(_, result)| unknown_script(result)) {
            again.add_command(command.clone());
        }
        let mut repeated = self.send(&live, again.ignore_errors()).await?.into_iter().skip(loads);
        let answers = results.into_iter().map(|result| {
            let result = if unknown_script(&result) { repeated.next() } else { Some(result) };
            result.ok_or_else(|| away("an answer is missing"))?.map_err(|error| failure(&error))
        });
        Ok((answers.collect::<Result<_, _>>()?, live.server))
    }

    /// A server that became a replica is left: the next call connects anew and looks.
    async fn send(&self, live: &Live, pipeline: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        let _permit = self.pipelines.acquire().await.map_err(away)?;
        let sent: RedisResult<Vec<RedisResult<Value>>> = pipeline.query_async(&mut live.connection.clone()).await;
        let demoted = |result: &RedisResult<Value>| {
            let kind = result.as_ref().err().map(RedisError::kind);
            matches!(kind, Some(ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)))
        };
        if sent.as_ref().map_or(true, |results| results.iter().any(demoted)) {
            self.drop_connection(live.number).await;
        }
        sent.map_err(|error| failure(&error))
    }

    async fn drop_connection(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.live.as_ref().is_some_and(|live| live.number == number) {
            state.live = None;
        }
    }

    /// The present connection, or a new one. Callers wait for the one that connects and share what comes of it.
    async fn live(&self) -> Result<Live, StoreError> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            return Ok(live.clone());
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < RETRY_PAUSE
        {
            return Err(error.clone());
        }
        let connecting = timeout(CONNECT_TIMEOUT, self.connect_to_use());
        match connecting.await.unwrap_or_else(|_| Err(away("no connection in time"))) {
            Ok((connection, identity)) => {
                if identity != state.identity {
                    state.servers += 1;
                    state.identity = identity;
                }
                state.connections += 1;
                let live = Live { connection, number: state.connections, server: state.servers };
                state.live = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to redis");
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| failure(&error))
    }

    /// A connection to a server that may be used, and the server's identity.
    async fn connect_to_use(&self) -> Result<(MultiplexedConnection, String), StoreError> {
        let mut connection = self.connect().await?;
        let server = Server::ask(&mut connection).await.map_err(|error| failure(&error))?;
        if !server.is_master() {
            return Err(away("the server is a replica"));
        }
        let findings = server.findings(&self.allow);
        if let Some(found) = findings.iter().find(|found| found.severity == Severity::Unsafe) {
            return Err(away(format!("not safe to use: {}", found.found)));
        }
        let loaded: RedisResult<Vec<Value>> = scripts::load().query_async(&mut connection).await;
        loaded.map_err(|error| failure(&error))?;
        Ok((connection, server.identity()))
    }
}

/// What an error means to the caller. Its text is passed on only where it cannot hold a secret.
fn failure(error: &RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (ErrorKind::Io, _) => away(error),
        (_, Some(code)) => away(format!("refused, {code}")),
        _ => away(error.category()),
    }
}
