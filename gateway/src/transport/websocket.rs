//! WebSocket: the same frames in binary messages.
//!
//! In: a TCP connection. Out: what [`ServerEnd`] makes of its bytes. Always: the frames that wait leave as they are, behind
//! one header for all of them; what is kept of an idle connection is a few numbers.

use super::tcp::Tcp;
use super::{WRITE_FRAMES_MAX, gather};
use crate::config::{GatewayConfig, WebsocketConfig};
use crate::planted::{Bug, planted};
use bytes::{Bytes, BytesMut};
use im_codec::websocket::ServerEnd;
use im_codec::{Action, Session};
use im_proto::client::CloseCode;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// What may stand before the frames: bytes of the transport's own, and a header.
const OWN_SLICES: usize = 2;

pub struct WebSocket {
    tcp: Tcp,
    end: RefCell<ServerEnd>,
}

impl WebSocket {
    pub fn new(tcp: Tcp) -> Self {
        Self { tcp, end: RefCell::default() }
    }

    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    pub fn bring(
        &self,
        input: Option<BytesMut>,
        config: &GatewayConfig,
        session: &mut Session,
        now_ms: u64,
        actions: &mut Vec<Action>,
    ) {
        let mut end = self.end.borrow_mut();
        let Some(input) = input else { return end.go_on(session, now_ms, actions) };
        // Without it nobody listens for this transport.
        if let Some(WebsocketConfig { origins, .. }) = &config.websocket {
            end.receive(input, origins, session, now_ms, actions);
        }
    }

    pub fn holds_input(&self) -> bool {
        self.end.borrow().holds_input()
    }

    pub fn has_own(&self) -> bool {
        self.end.borrow().outgoing.has_own()
    }

    pub fn close(&self, code: CloseCode) -> bool {
        let mut end = self.end.borrow_mut();
        if planted(Bug::WebsocketCloseMissing) && end.outgoing.is_open() {
            return true;
        }
        end.close(code)
    }

    pub fn try_write(&self, frames: &VecDeque<Bytes>) -> io::Result<usize> {
        let mut end = self.end.borrow_mut();
        let next = end.outgoing.next(frames.iter().take(WRITE_FRAMES_MAX).map(Bytes::len));
        let mut header = Cow::Borrowed(next.header);
        if frames.len() > 1
            && planted(Bug::WebsocketHeaderShort)
            && let Some(length) = header.to_mut().last_mut()
        {
            *length = length.wrapping_sub(1);
        }
        let mut slices = [IoSlice::new(&[]); OWN_SLICES + WRITE_FRAMES_MAX];
        slices[0] = IoSlice::new(next.own);
        slices[1] = IoSlice::new(&header);
        let count = gather(&mut slices[OWN_SLICES..], frames, next.payload_bytes);
        let written = self.tcp.try_write_slices(&slices[..OWN_SLICES + count])?;
        Ok(end.outgoing.written(written))
    }
}
