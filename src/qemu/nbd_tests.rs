use super::*;
use crate::qemu::testio::Script;

fn be(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn option_reply(option: u32, reply: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    be(&[
        &[0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9],
        &option.to_be_bytes(),
        &reply.to_be_bytes(),
        &len.to_be_bytes(),
        payload,
    ])
}

/// What a server of one 8 KiB export with the context `q:m` says at the start.
fn hello() -> Vec<u8> {
    let info = be(&[&[0, 0], &8192u64.to_be_bytes(), &[0, 1]]);
    be(&[
        b"NBDMAGICIHAVEOPT",
        &[0, 3],
        &option_reply(8, 1, &[]),
        &option_reply(10, 4, b"\x00\x00\x00\x05q:m"),
        &option_reply(10, 1, &[]),
        &option_reply(7, 3, &info),
        &option_reply(7, 1, &[]),
    ])
}

fn open(after: &[u8]) -> Result<Nbd<Script>, NbdError> {
    Nbd::open(Script::new(be(&[&hello(), after])), "x", Some("q:m"))
}

fn chunk(flags: u8, kind: u16, cookie: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("short");
    be(&[
        &[0x66, 0x8e, 0x33, 0xef, 0, flags],
        &kind.to_be_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, cookie],
        &len.to_be_bytes(),
        payload,
    ])
}

#[track_caller]
fn assert_malformed<T: std::fmt::Debug>(answer: Result<T, NbdError>) {
    assert!(matches!(answer, Err(NbdError::Malformed(_))), "{answer:?}");
}

#[test]
fn the_handshake_is_the_literal_bytes_of_the_protocol() {
    let nbd = open(&[]).expect("a good server");
    assert_eq!(nbd.size_bytes(), 8192);
    assert_eq!(nbd.context, Some(5));
    let expected = be(&[
        &[0, 0, 0, 3],
        b"IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00",
        b"IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x10",
        b"\x00\x00\x00\x01x\x00\x00\x00\x01\x00\x00\x00\x03q:m",
        b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x07",
        b"\x00\x00\x00\x01x\x00\x00",
    ]);
    assert_eq!(nbd.io.get_ref().written, expected);
}

#[test]
fn a_block_status_is_read_from_literal_bytes() {
    let payload =
        b"\x00\x00\x00\x05\x00\x00\x10\x00\x00\x00\x00\x01\x00\x00\x30\x00\x00\x00\x00\x00";
    let mut nbd = open(&chunk(1, 5, 1, payload)).expect("a good server");
    let sent_before = nbd.io.get_ref().written.len();
    let found = nbd.block_status(4096, 8192).expect("a good answer");
    assert_eq!(
        found,
        [Status { len_bytes: 4096, flags: 1 }, Status { len_bytes: 12288, flags: 0 }]
    );
    let expected: [u8; 28] = *b"\x25\x60\x95\x13\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01\
        \x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x20\x00";
    assert_eq!(nbd.io.get_ref().written[sent_before..], expected);
}

#[test]
fn a_read_takes_data_and_holes_in_any_order() {
    let answer = be(&[
        &chunk(0, 1, 1, b"\x00\x00\x00\x00\x00\x00\x00\x12abcd"),
        &chunk(0, 2, 1, b"\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x02"),
        &chunk(1, 0, 1, &[]),
    ]);
    let mut nbd = open(&answer).expect("a good server");
    let mut buf = [9; 6];
    nbd.read(16, &mut buf).expect("a good answer");
    assert_eq!(buf, *b"\0\0abcd");
}

#[test]
fn a_write_is_acknowledged_by_a_simple_reply() {
    let answer = b"\x67\x44\x66\x98\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01";
    let mut nbd = open(answer).expect("a good server");
    nbd.write(512, b"abcd").expect("acknowledged");
    assert!(nbd.io.get_ref().written.ends_with(b"\x00\x00\x02\x00\x00\x00\x00\x04abcd"));
}

#[test]
fn errors_of_the_server_keep_the_session_in_step() {
    let answer = be(&[
        &chunk(1, 0x8001, 1, b"\x00\x00\x00\x05\x00\x00"),
        b"\x67\x44\x66\x98\x00\x00\x00\x1c\x00\x00\x00\x00\x00\x00\x00\x02",
        b"\x67\x44\x66\x98\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03",
    ]);
    let mut nbd = open(&answer).expect("a good server");
    let read = nbd.read(0, &mut [0; 4]);
    assert!(matches!(read, Err(NbdError::Server { errno: 5, .. })), "{read:?}");
    let write = nbd.write(0, &[0; 4]);
    assert!(matches!(write, Err(NbdError::Server { errno: 28, .. })), "{write:?}");
    nbd.simple(Command::Flush, 0, 0).expect("the third is fine");
    assert!(!nbd.is_broken());
}

#[test]
fn malformed_answers_to_a_read_are_errors_and_end_the_session() {
    let data = |offset: u8, len: usize| {
        let mut payload = vec![0, 0, 0, 0, 0, 0, 0, offset];
        payload.resize(8 + len, 7);
        payload
    };
    let bad = [
        chunk(1, 1, 1, &data(0, 5)),                         // too long
        chunk(1, 1, 1, &data(0, 3)),                         // a byte missing
        chunk(1, 1, 1, &data(200, 4)),                       // elsewhere
        chunk(1, 1, 2, &data(0, 4)),                         // somebody else's
        chunk(1, 1, 1, &[0; 7]),                             // no offset
        chunk(1, 2, 1, &data(0, 4)[..10]),                   // hole without length
        chunk(1, 2, 1, b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff"), // endless hole
        chunk(1, 5, 1, &[0; 12]),                            // not for a read
        chunk(1, 0, 1, &[0]),                                // content in nothing
        chunk(1, 0x8001, 1, &[0, 0]),                        // error without number
        chunk(1, 0x8001, 1, &[0; 6]),                        // error number 0
        chunk(1, 0x8001, 1, b"\xff\xff\xff\xff\0\0"),        // no error number
        be(&[&chunk(0, 1, 1, &data(0, 4)), &chunk(1, 1, 1, &data(0, 4))]), // twice
        b"\x66\x8e\x33\xee\0\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\0".to_vec(), // magic
        b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x01\xff\xff\xff\xff".to_vec(), // 4 GiB
        b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec(), // success without data
    ];
    for answer in bad {
        let mut nbd = open(&answer).expect("a good server");
        assert_malformed(nbd.read(0, &mut [0; 4]));
        assert!(nbd.is_broken(), "{answer:?}");
    }
}

#[test]
fn malformed_block_status_is_an_error() {
    for payload in [
        &b"\0\0\0\x06\0\0\x10\0\0\0\0\x01"[..],
        &b"\0\0\0\x05"[..],
        &b"\0\0\0\x05\0\0\x10\0\0\0\0"[..],
        &b"\0\0\0\x05\0\0\0\0\0\0\0\x01"[..],
        &b"\0"[..],
        &b""[..],
    ] {
        let mut nbd = open(&chunk(1, 5, 1, payload)).expect("a good server");
        assert_malformed(nbd.block_status(0, 8192));
    }
    let twice = be(&[
        &chunk(0, 5, 1, b"\0\0\0\x05\0\0\x10\0\0\0\0\x01"),
        &chunk(1, 5, 1, b"\0\0\0\x05\0\0\x10\0\0\0\0\x01"),
    ]);
    assert_malformed(open(&twice).expect("a good server").block_status(0, 8192));
}

#[test]
fn a_server_that_breaks_off_anywhere_is_an_error() {
    let whole = be(&[&hello(), &chunk(1, 1, 1, b"\0\0\0\0\0\0\0\0abcd")]);
    for len in 0..whole.len() {
        let stream = Script::new(&whole[..len]);
        let outcome =
            Nbd::open(stream, "x", Some("q:m")).and_then(|mut nbd| nbd.read(0, &mut [0; 4]));
        assert!(matches!(outcome, Err(NbdError::Io(_))), "{len}: {outcome:?}");
    }
}

#[test]
fn no_single_changed_byte_makes_the_client_panic_or_accept_too_much() {
    let whole = be(&[&hello(), &chunk(1, 1, 1, b"\0\0\0\0\0\0\0\0abcd")]);
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let mut buf = [0; 4];
            let opened = Nbd::open(Script::new(bytes), "x", Some("q:m"));
            if let Ok(mut nbd) = opened
                && nbd.read(0, &mut buf).is_ok()
            {
                let data = whole.len() - 4;
                let expected =
                    std::array::from_fn(|i| if data + i == at { value } else { b"abcd"[i] });
                assert_eq!(buf, expected, "byte {at} = {value}");
            }
        }
    }
}

#[test]
fn servers_that_refuse_or_lack_what_is_needed_are_errors() {
    let refused = be(&[
        b"NBDMAGICIHAVEOPT\x00\x03",
        &option_reply(8, 1, &[]),
        &option_reply(7, 0x8000_0006, b"no"),
    ]);
    let answer = Nbd::open(Script::new(refused), "x", None).map(|nbd| nbd.size_bytes());
    assert!(matches!(answer, Err(NbdError::Option { option: 7, .. })), "{answer:?}");

    let no_context =
        be(&[b"NBDMAGICIHAVEOPT\x00\x03", &option_reply(8, 1, &[]), &option_reply(10, 1, &[])]);
    assert_malformed(
        Nbd::open(Script::new(no_context), "x", Some("q:m")).map(|nbd| nbd.size_bytes()),
    );

    for bad in [&b"NBDMAGIcIHAVEOPT\0\x03"[..], b"NBDMAGICIHAVEOPT\0\0"] {
        assert_malformed(Nbd::open(Script::new(bad), "x", None).map(|nbd| nbd.size_bytes()));
    }
}
