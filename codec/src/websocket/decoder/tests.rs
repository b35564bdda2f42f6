//! The decoder alone, at every place where its input can be cut.

use super::*;
use crate::websocket::encode_masked;
use bytes::BufMut as _;

const LIMITS: MessageLimits = MessageLimits { bytes_max: 1000, fragments_max: 4 };
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

type Read = (Vec<Event>, Option<Violation>);

/// What comes out of `pieces`, the data of a message joined.
fn read(role: Role, pieces: &[&[u8]]) -> Read {
    let mut decoder = Decoder::new(role, LIMITS);
    let mut events: Vec<Event> = Vec::new();
    for piece in pieces {
        let mut input = BytesMut::from(*piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(event)) => join(&mut events, event),
                Ok(None) => break,
                Err(violation) => {
                    // How much of a message came out before it turned out to be wrong is the cutting's affair.
                    events.retain(|event| !matches!(event, Event::Data { is_last: false, .. }));
                    return (events, Some(violation));
                }
            }
        }
        assert!(input.is_empty(), "bytes left behind");
        assert!(decoder.held_bytes() <= HEADER_BYTES_MAX + CONTROL_BYTES_MAX);
    }
    (events, None)
}

fn join(events: &mut Vec<Event>, event: Event) {
    let Event::Data { kind, bytes, is_last } = event else { return events.push(event) };
    let open = events.iter_mut().rev().find_map(|event| match event {
        Event::Data { bytes, is_last, .. } if !*is_last => Some((bytes, is_last)),
        _ => None,
    });
    let Some((before, ends)) = open else { return events.push(Event::Data { kind, bytes, is_last }) };
    *before = [&before[..], &bytes[..]].concat().into();
    *ends = is_last;
}

/// The same for every cutting in two and for single bytes.
fn at_every_split(role: Role, stream: &[u8]) -> Read {
    let whole = read(role, &[stream]);
    for at in 0..=stream.len() {
        assert_eq!(read(role, &[&stream[..at], &stream[at..]]), whole, "split at {at} of {stream:x?}");
    }
    assert_eq!(read(role, &stream.chunks(1).collect::<Vec<_>>()), whole, "single bytes of {stream:x?}");
    whole
}

fn masked(opcode: Opcode, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encode_masked(opcode, &[payload], KEY, &mut out);
    out
}

/// Not final: the first or a middle fragment.
fn fragment(opcode: Opcode, payload: &[u8]) -> BytesMut {
    let mut frame = masked(opcode, payload);
    frame[0] &= 0x7f;
    frame
}

fn data(kind: Kind, bytes: &[u8]) -> Event {
    Event::Data { kind, bytes: Bytes::copy_from_slice(bytes), is_last: true }
}

fn refused(stream: &[u8]) -> Violation {
    at_every_split(Role::Server, stream).1.unwrap_or_else(|| panic!("taken: {stream:x?}"))
}

#[test]
fn messages_fragments_and_control_frames_come_out_in_order() {
    let mut stream = masked(Opcode::Binary, &[7; 200]);
    stream.put(fragment(Opcode::Text, "h\u{e9}".as_bytes()));
    stream.put(masked(Opcode::Ping, b"ping"));
    stream.put(fragment(Opcode::Continuation, b""));
    stream.put(masked(Opcode::Pong, b""));
    stream.put(masked(Opcode::Continuation, b"llo"));
    stream.put(masked(Opcode::Binary, b""));
    stream.put(masked(Opcode::Close, b"\x03\xe8bye"));
    let (events, violation) = at_every_split(Role::Server, &stream);
    let close = CloseFrame { code: Some(1000), reason: Bytes::from_static(b"bye") };
    let expected = [
        data(Kind::Binary, &[7; 200]),
        data(Kind::Text, "h\u{e9}llo".as_bytes()),
        Event::Ping(Bytes::from_static(b"ping")),
        Event::Pong(Bytes::new()),
        data(Kind::Binary, b""),
        Event::Close(close),
    ];
    assert_eq!((events.as_slice(), violation), (&expected[..], None));
}

#[test]
fn what_follows_a_close_means_nothing() {
    let mut stream = masked(Opcode::Close, b"");
    stream.put_slice(&[0xff; 50]);
    assert_eq!(at_every_split(Role::Server, &stream), (vec![Event::Close(CloseFrame::default())], None));
}

#[test]
fn a_client_reads_frames_without_a_mask_only() {
    assert_eq!(at_every_split(Role::Client, b"\x82\x03abc"), (vec![data(Kind::Binary, b"abc")], None));
    let masked = masked(Opcode::Binary, b"abc");
    assert!(matches!(at_every_split(Role::Client, &masked).1, Some(Violation::Protocol(_))));
    assert!(matches!(refused(b"\x82\x03abc"), Violation::Protocol(_)));
}

#[test]
fn a_frame_against_the_rules_is_refused() {
    for (stream, what) in [
        (&[0xc2, 0x80][..], "a reserved bit"),
        (&[0x83, 0x80], "a reserved opcode"),
        (&[0x8b, 0x80], "a reserved control opcode"),
        (&[0x09, 0x80], "a control frame in fragments"),
        (&[0x89, 0xfe, 0, 126], "a control frame of more than 125 bytes"),
        (&[0x80, 0x80], "a continuation of nothing"),
        (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "the top bit of a length"),
        (&[0x82, 0xfe, 0, 125], "16 bits for a length of 7"),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "64 bits for a length of 16"),
    ] {
        assert!(matches!(refused(stream), Violation::Protocol(_)), "{what}");
    }
    assert!(matches!(refused(&masked(Opcode::Close, b"\x03")), Violation::Protocol(_)));
    assert!(matches!(refused(&masked(Opcode::Close, b"\x03\xed")), Violation::Protocol(_)));
    assert_eq!(refused(&masked(Opcode::Close, b"\x03\xe8\xff")), Violation::NotUtf8);
    let mut inside = fragment(Opcode::Binary, b"a");
    inside.put(masked(Opcode::Text, b"b"));
    assert!(matches!(refused(&inside), Violation::Protocol(_)));
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header() {
    assert!(matches!(refused(&[0x82, 0xfe, 0x03, 0xe9]), Violation::TooBig(_)));
    assert!(matches!(refused(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Violation::TooBig(_)));
    let mut stream = fragment(Opcode::Binary, &[1; 900]);
    stream.put(&masked(Opcode::Continuation, &[1; 101])[..4]);
    assert!(matches!(refused(&stream), Violation::TooBig(_)));
}

#[test]
fn fragments_are_bounded_even_if_they_are_empty() {
    let mut stream = fragment(Opcode::Binary, b"");
    for _ in 1..LIMITS.fragments_max {
        stream.put(fragment(Opcode::Continuation, b""));
    }
    assert_eq!(at_every_split(Role::Server, &stream), (vec![], None));
    stream.put(masked(Opcode::Continuation, b""));
    assert!(matches!(refused(&stream), Violation::TooBig(_)));
}

#[test]
fn text_is_judged_across_fragments_with_the_byte_that_is_wrong() {
    let mut stream = fragment(Opcode::Text, b"\xf0\x9f");
    assert_eq!(at_every_split(Role::Server, &stream).1, None);
    stream.put(fragment(Opcode::Continuation, b"\x41"));
    assert_eq!(refused(&stream), Violation::NotUtf8);
    assert_eq!(refused(&masked(Opcode::Text, b"\xf0\x9f")), Violation::NotUtf8);
    // The wrong byte is enough: the frame need not come whole.
    assert_eq!(refused(&masked(Opcode::Text, b"abc\xff\xff\xff")[..10]), Violation::NotUtf8);
}

#[test]
fn payloads_in_one_read_are_slices_of_it() {
    let mut input = masked(Opcode::Binary, b"first");
    input.put(masked(Opcode::Binary, b"second"));
    let memory = input.as_ptr_range();
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    for expected in ["first", "second"] {
        let Ok(Some(Event::Data { bytes, is_last: true, .. })) = decoder.next(&mut input) else { panic!("no message") };
        assert_eq!(bytes, expected);
        assert!(memory.contains(&bytes.as_ptr()));
    }
    assert!(!decoder.is_inside_message());
}
