use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::access_point::AccessPoint;
use crate::message::{Ack, HopVerdict, RouteError};

fn contact() -> impl Strategy<Value = Contact> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
    ];
    (any::<u64>(), ip, any::<u16>(), any::<u64>()).prop_map(|(id, ip, port, incarnation)| Contact {
        id: Id(id),
        access_point: AccessPoint { ip, port },
        incarnation,
    })
}

fn contacts() -> impl Strategy<Value = Vec<Contact>> {
    prop::collection::vec(contact(), 0..=CONTACTS_MAX)
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<bool>().prop_map(|maintenance| Body::Lookup { maintenance }),
        Just(Body::Join),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(exact, payload)| Body::Data { exact, payload: Bytes::from(payload) }),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(after, payload)| Body::Reliable { after, payload: Bytes::from(payload) }),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(last, payload)| Body::Broadcast { last: Id(last), payload: Bytes::from(payload) }),
        (prop::collection::vec(any::<u64>().prop_map(Id), 0..300), any::<Vec<u8>>()).prop_map(
            |(destinations, payload)| Body::Multicast { destinations, payload: Bytes::from(payload) }
        ),
    ]
}

fn route() -> impl Strategy<Value = Message> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u16>(), any::<u8>(), any::<u64>());
    (contact(), numbers, any::<Option<u64>>(), body()).prop_map(
        |(source, (sequence, key, hops, backward, hop), entry, body)| {
            Message::Route(Route {
                source,
                sequence,
                key: Id(key),
                hops,
                backward,
                hop,
                entry: entry.map(Id),
                body,
            })
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    let verdict = prop::sample::select(vec![
        HopVerdict::Taken,
        HopVerdict::Stale,
        HopVerdict::NotMember,
        HopVerdict::Overloaded,
    ]);
    (any::<u64>(), any::<u32>(), verdict).prop_map(|(hop, held_micros, verdict)| Ack {
        hop,
        held_micros,
        verdict,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let found = (contact(), any::<u16>()).prop_map(|(responsible, hops)| Ok(Found { responsible, hops }));
    let result = prop_oneof![found, Just(Err(RouteError::NoSuchNode))];
    prop_oneof![
        route(),
        prop::collection::vec(ack(), 0..=ACKS_MAX).prop_map(Message::Acks),
        (any::<u64>(), any::<bool>(), result).prop_map(|(sequence, maintenance, result)| Message::Answer {
            sequence,
            maintenance,
            result
        }),
        prop::collection::vec(any::<u64>().prop_map(Id), 0..=UNDELIVERABLE_MAX)
            .prop_map(|ids| Message::Undeliverable { destinations: ids, reason: RouteError::NoNextHop }),
        (any::<u64>(), contacts())
            .prop_map(|(sequence, successors)| Message::JoinOffer { sequence, successors }),
        any::<u64>().prop_map(|sequence| Message::Receipt { sequence }),
        any::<u64>().prop_map(|sequence| Message::JoinConfirm { sequence }),
        (prop::option::of(contact()), contacts(), contacts()).prop_map(
            |(predecessor, successors, fingers)| Message::HandOver { predecessor, successors, fingers }
        ),
        prop::option::of(contact()).prop_map(|predecessor| Message::Leave { predecessor }),
        any::<bool>().prop_map(Message::LeaveTaken),
        contacts().prop_map(|successors| Message::Left { successors }),
        any::<u64>().prop_map(|token| Message::Query { token }),
        (any::<u64>(), prop::option::of(contact()), contacts()).prop_map(
            |(token, predecessor, successors)| Message::Neighbours { token, predecessor, successors }
        ),
        (any::<u64>(), any::<bool>()).prop_map(|(token, member)| Message::Busy { token, member }),
        prop::option::of(contact()).prop_map(|predecessor| Message::Notify { predecessor }),
        contacts().prop_map(|successors| Message::Introduce { successors }),
        (any::<u64>(), any::<u64>()).prop_map(|(token, target)| Message::Check { token, target: Id(target) }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(token, responsible)| Message::Checked { token, responsible }),
    ]
}

fn full_ring() -> Ring {
    Ring::new(1 << 64).unwrap()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_the_stream_is_cut(
        messages in prop::collection::vec(message(), 1..6),
        cut in 1_usize..5000,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            let before = stream.len();
            let bytes = encode(message, &mut stream).unwrap();
            prop_assert_eq!(stream.len(), before + bytes);
        }
        let mut reader = FrameReader::default();
        let mut decoded = Vec::new();
        for chunk in stream.chunks(cut) {
            reader.feed(chunk, |body| -> Result<(), FrameError> {
                decoded.push(decode(body, full_ring()).unwrap());
                Ok(())
            }).unwrap();
        }
        prop_assert_eq!(reader.kept_bytes(), 0);
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 1..4000), cut in 1_usize..500) {
        let _ = decode(&bytes, Ring::DEFAULT);
        let mut reader = FrameReader::default();
        for chunk in bytes.chunks(cut) {
            let fed = reader.feed(chunk, |body| -> Result<(), FrameError> {
                if !body.is_empty() {
                    let _ = decode(body, Ring::DEFAULT);
                }
                Ok(())
            });
            if fed.is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_never_panics(
        message in message(), place in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let mut frame = Vec::new();
        encode(&message, &mut frame).unwrap();
        let body = &mut frame[PREFIX_BYTES..];
        body[place.index(body.len())] = value;
        let _ = decode(body, full_ring());
    }
}

fn decoded(message: &Message, ring: Ring) -> Result<Message, WireError> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    decode(&frame[PREFIX_BYTES..], ring)
}

fn someone(id: u64) -> Contact {
    Contact { id: Id(id), access_point: "p2ps://127.0.0.1:3001".parse().unwrap(), incarnation: u64::MAX }
}

#[test]
fn the_longest_lists_pass_and_longer_ones_are_refused() {
    let acks = |length| {
        Message::Acks(vec![Ack { hop: u64::MAX, held_micros: u32::MAX, verdict: HopVerdict::Taken }; length])
    };
    assert!(decoded(&acks(ACKS_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&acks(ACKS_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    let left = |length| Message::Left { successors: vec![someone(7); length] };
    assert!(decoded(&left(CONTACTS_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&left(CONTACTS_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    assert!(matches!(decoded(&left(100_000), Ring::DEFAULT), Err(WireError::TooLarge { .. })));
}

#[test]
fn the_largest_payload_passes_and_a_larger_one_is_refused() {
    let data = |bytes| {
        Message::Route(Route {
            source: someone(1),
            sequence: 1,
            key: Id(2),
            hops: 1,
            backward: 0,
            hop: 1,
            entry: None,
            body: Body::Data { exact: true, payload: Bytes::from(vec![0; bytes]) },
        })
    };
    assert!(decoded(&data(PAYLOAD_BYTES_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&data(PAYLOAD_BYTES_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    let mut buffer = vec![7];
    assert!(encode(&data(FRAME_BYTES_MAX), &mut buffer).is_err());
    assert_eq!(buffer, [7], "a message that cannot be sent leaves nothing behind");
}

#[test]
fn ids_off_the_ring_are_refused_wherever_they_stand() {
    let ring = Ring::new(100).unwrap();
    let route = |source, key, entry| {
        Message::Route(Route {
            source: someone(source),
            sequence: 1,
            key: Id(key),
            hops: 1,
            backward: 0,
            hop: 1,
            entry,
            body: Body::Join,
        })
    };
    assert!(decoded(&route(99, 99, Some(Id(99))), ring).is_ok());
    for message in [
        route(100, 1, None),
        route(1, 100, None),
        route(1, 1, Some(Id(100))),
        Message::Left { successors: vec![someone(100)] },
        Message::Notify { predecessor: Some(someone(100)) },
        Message::HandOver { predecessor: Some(someone(100)), successors: Vec::new(), fingers: Vec::new() },
        Message::HandOver { predecessor: None, successors: Vec::new(), fingers: vec![someone(100)] },
        Message::Check { token: 1, target: Id(100) },
        Message::Answer {
            sequence: 1,
            maintenance: false,
            result: Ok(Found { responsible: someone(100), hops: 1 }),
        },
    ] {
        assert!(matches!(decoded(&message, ring), Err(WireError::OffRing { .. })), "{message:?}");
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_prefix_alone() {
    let mut reader = FrameReader::default();
    let prefix = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    assert_eq!(reader.feed(&prefix[..3], |_| Ok::<(), FrameError>(())), Ok(()));
    assert!(reader.feed(&prefix[3..], |_| Ok::<(), FrameError>(())).is_err());
    assert!(reader.kept_bytes() <= PREFIX_BYTES);
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut frame = Vec::new();
    encode(&Message::LeaveTaken(true), &mut frame).unwrap();
    frame.push(0);
    assert_eq!(decode(&frame[PREFIX_BYTES..], Ring::DEFAULT), Err(WireError::Trailing { bytes: 1 }));
}
