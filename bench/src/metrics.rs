//! The server's HTTP side: is it ready, and what do its counters say.
//!
//! In: the address of its HTTP listener. Out: a status or a sum of counters. Always: blocking and short; called
//! outside the measured window or at its edges.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// `/readyz` answers 200.
pub fn ready(http: SocketAddr) -> bool {
    get(http, "/readyz").is_ok_and(|response| response.split_ascii_whitespace().nth(1) == Some("200"))
}

/// The sum of all series of a counter in `/metrics`; `None` if the server does not export it.
pub fn counter(http: SocketAddr, name: &str) -> Option<f64> {
    sum_of(&get(http, "/metrics").ok()?, name)
}

fn sum_of(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let series = line.strip_prefix(name)?;
        let value = match series.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => series.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn get(http: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&http, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_not_mixed_with_longer_names() {
        let text = "# TYPE im_writes counter\nim_writes{core=\"0\"} 3\nim_writes{core=\"1\"} 4\nim_writes_bytes 100\n";
        assert_eq!(sum_of(text, "im_writes"), Some(7.0));
        assert_eq!(sum_of(text, "im_writes_bytes"), Some(100.0));
        assert_eq!(sum_of(text, "im_reads"), None);
    }
}
