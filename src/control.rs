//! The way of an operator's orders into a running standalone server: a Unix domain socket in the data folder.
//!
//! In: connections of one line each. Out: the answer's lines, behind them one that says `ok`, or `refused` and why. Always: the
//! socket is the server's own user's (0600); one order at a time, each with a bound on its bytes and its time; whoever has the
//! folder's lock owns the socket, so one that a killed server left is replaced.

use crate::account::{self, Order};
use crate::exit::Failure;
use im_storage::ports::Relations;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

const SOCKET: &str = "control.sock";
/// What the kernel takes as a socket's path.
const PATH_BYTES_MAX: usize = 107;
const LINE_BYTES_MAX: u64 = 256;
/// For one order, from its first byte to the last of the answer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(40);
/// For its line: whoever is behind it waits.
const LINE_TIMEOUT: Duration = Duration::from_secs(2);
/// For whoever asks: others may be before it.
const ASK_TIMEOUT: Duration = Duration::from_secs(90);
/// A failed accept (no file descriptors left) is tried again after this pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const OK: &str = "ok";
const REFUSED: &str = "refused ";

/// The socket in a folder. A path that is too long for the kernel is gone by way of the folder's descriptor.
struct Place {
    path: PathBuf,
    /// Open for as long as the path is used.
    _folder: Option<File>,
}

impl Place {
    fn in_folder(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(folder)?;
        Ok(Self { path: format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into(), _folder: Some(folder) })
    }
}

/// A socket that is served. Dropping it ends that, and removes it.
pub struct Control {
    place: Place,
    served: JoinHandle<()>,
}

impl Control {
    /// On the present tokio runtime. The caller has the folder's lock.
    pub fn serve(folder: &Path, relations: Arc<dyn Relations>) -> io::Result<Self> {
        let place = Place::in_folder(folder)?;
        match std::fs::remove_file(&place.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&place.path)?;
        std::fs::set_permissions(&place.path, Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&place.path)?.uid();
        Ok(Self { place, served: tokio::spawn(serve(listener, owner, relations)) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.served.abort();
        let _ = std::fs::remove_file(&self.place.path);
    }
}

async fn serve(listener: UnixListener, owner: u32, relations: Arc<dyn Relations>) {
    loop {
        match listener.accept().await {
            // Between bind and chmod somebody else may have come in.
            Ok((stream, _)) if !stream.peer_cred().is_ok_and(|peer| [0, owner].contains(&peer.uid())) => {
                tracing::warn!("another user of this machine was turned away");
            }
            Ok((stream, _)) => match tokio::time::timeout(ORDER_TIMEOUT, answer(stream, &*relations)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "an order was broken off"),
                Err(_) => tracing::warn!("an order took too long"),
            },
            Err(error) => {
                tracing::warn!(%error, "control accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, relations: &dyn Relations) -> io::Result<()> {
    let mut line = String::new();
    let reading = BufReader::new(&mut stream).take(LINE_BYTES_MAX);
    let mut reading = std::pin::pin!(reading);
    tokio::time::timeout(LINE_TIMEOUT, reading.read_line(&mut line)).await??;
    let answer = match line.strip_suffix('\n').and_then(Order::parse) {
        Some(order) => {
            let answer = account::carry_out(relations, &order).await;
            tracing::info!(order = order.to_line(), is_done = answer.is_ok(), "an operator's order");
            answer.map_err(|error| error.to_string())
        }
        None => Err("this server does not know the order".to_owned()),
    };
    let text = match answer {
        Ok(text) => format!("{text}{OK}\n"),
        Err(why) => format!("{REFUSED}{}\n", why.replace('\n', " ")),
    };
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// What the server on this folder answers; `None`: none runs.
pub async fn ask(folder: &Path, order: &str) -> Result<Option<String>, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::Other(format!("the server on {}: {what}", folder.display()));
    let mut stream = match connect(folder).await {
        Ok(stream) => stream,
        // No folder, no socket, or one that a killed server left.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => {
            let place = folder.join(SOCKET);
            return Err(Failure::Folder(format!("{}: {error}; run this as the server's user", place.display())));
        }
    };
    let talk = async {
        let mut text = String::new();
        stream.write_all(format!("{order}\n").as_bytes()).await?;
        stream.read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let text = match tokio::time::timeout(ASK_TIMEOUT, talk).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"no answer in time; look at its log")),
    };
    verdict(&text).map(Some).map_err(|why| failed(&why))
}

async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let place = Place::in_folder(folder)?;
    UnixStream::connect(&place.path).await
}

/// The lines before the last, if that says `ok`.
fn verdict(text: &str) -> Result<String, String> {
    let broken_off = || "it broke off; whether the order was carried out is not known, so repeat it".to_owned();
    let text = text.strip_suffix('\n').ok_or_else(broken_off)?;
    let (lines, last) = text.rsplit_once('\n').map_or(("", text), |(lines, last)| (lines, last));
    match last.strip_prefix(REFUSED) {
        Some(why) => Err(why.to_owned()),
        None if last == OK && lines.is_empty() => Ok(String::new()),
        None if last == OK => Ok(format!("{lines}\n")),
        None => Err(broken_off()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_is_none() {
        assert_eq!(verdict("ok\n"), Ok(String::new()));
        assert_eq!(verdict("ann is banned\nok\n"), Ok("ann is banned\n".to_owned()));
        assert_eq!(verdict("refused too many\n"), Err("too many".to_owned()));
        let whole = "ann\nbob\nok\n";
        for end in 0..whole.len() {
            assert!(verdict(&whole[..end]).is_err(), "{end}");
        }
    }
}
